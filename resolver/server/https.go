package server

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"smartdns/resolver/wire"
)

const (
	httpPath  = "/dns-query"
	httpMedia = "application/dns-message"
	// maxHeader is the room for a query in the URL of a GET, which is a third
	// longer than the query, and what browsers send beside it.
	maxHeader = 12 << 10
	// maxStreams is how many requests of one connection are read or answered at
	// once. net/http closes a connection with four times as many waiting, which
	// is what a flood of resets comes to (CVE-2023-44487).
	maxStreams = 32
)

// httpServer returns the server of a DNS over HTTPS listener.
func (s *Server) httpServer(l *secureListener) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc(httpPath, func(w http.ResponseWriter, r *http.Request) {
		if !l.enter() {
			return
		}
		defer l.handlers.Done()
		s.serveHTTP(w, r, l.gate)
	})
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           mux,
		Protocols:         &protocols,
		ReadHeaderTimeout: s.limits.TCPFirst,
		ReadTimeout:       s.limits.TCPFirst,
		WriteTimeout:      s.limits.Resolve + s.limits.TCPWrite,
		IdleTimeout:       s.limits.TCPIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, requestsKey{}, new(atomic.Int64))
		},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: 64 << 10,
			MaxReceiveBufferPerStream:     64 << 10, // what clients take it for until they are told
			MaxDecoderHeaderTableSize:     4 << 10,
			MaxEncoderHeaderTableSize:     4 << 10,
			WriteByteTimeout:              s.limits.TCPWrite,
		},
	}
}

// requestsKey finds the count of a connection's requests in its context.
type requestsKey struct{}

// serveHTTP answers one request (RFC 8484 section 4).
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request, at *gate) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	from, err := httpClient(r.RemoteAddr, local)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	from.Listener = at.addr
	if n, ok := r.Context().Value(requestsKey{}).(*atomic.Int64); ok && int(n.Add(1)) >= s.limits.TCPPerLifetime {
		w.Header().Set("Connection", "close")
	}
	msg, status := httpQuery(w, r)
	if status != 0 {
		s.count.rejected.Add(1)
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, POST")
		}
		http.Error(w, httpWhy(status), status)
		return
	}
	room := s.secure.rooms.Get().(*[answerRoom]byte)
	defer s.secure.rooms.Put(room)
	q, reply, ok := s.accept(room[:0], msg, &from)
	if ok {
		s.count.https.Add(1)
		if reply, ok = at.lane.answer(room[:0], q, from.View); ok { // the fast lane, or Resolve
			s.count.sealed.Add(1)
		} else if reply, status = s.answerHTTP(q, from); status != 0 {
			http.Error(w, httpWhy(status), status)
			return
		}
	}
	if len(reply) == 0 {
		http.Error(w, httpWhy(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	reply = s.withOptions(reply, q, from)
	ttl, _ := wire.MinTTL(reply)
	h := w.Header()
	h.Set("Content-Type", httpMedia)
	h.Set("Content-Length", strconv.Itoa(len(reply)))
	h.Set("Cache-Control", "max-age="+strconv.FormatUint(uint64(ttl), 10))
	_, _ = w.Write(reply) // a client that is gone
}

// answerHTTP runs the handler within the limits; status, unless 0, is what to
// say instead of an answer.
func (s *Server) answerHTTP(q wire.Query, from Client) (reply []byte, status int) {
	if !s.tcp.queries.take(from.Addr.Addr()) {
		s.count.dropped.Add(1)
		return nil, http.StatusTooManyRequests
	}
	defer s.tcp.queries.release(from.Addr.Addr())
	if !s.take() {
		return nil, http.StatusServiceUnavailable
	}
	defer s.release()
	if reply = s.answer(nil, q, from); len(reply) == 0 {
		return nil, http.StatusServiceUnavailable
	}
	return reply, 0
}

// httpQuery returns the message that a request carries; status, unless 0, is
// what to say instead.
func httpQuery(w http.ResponseWriter, r *http.Request) (msg []byte, status int) {
	switch r.Method {
	case http.MethodGet:
		text := strings.TrimRight(r.URL.Query().Get("dns"), "=")
		switch {
		case text == "":
			return nil, http.StatusBadRequest
		case base64.RawURLEncoding.DecodedLen(len(text)) > maxTCPQuery:
			return nil, http.StatusRequestURITooLong
		}
		msg, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil, http.StatusBadRequest
		}
		return msg, 0
	case http.MethodPost:
		media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
		switch {
		case !strings.EqualFold(strings.TrimSpace(media), httpMedia):
			return nil, http.StatusUnsupportedMediaType
		case r.ContentLength > maxTCPQuery:
			w.Header().Set("Connection", "close") // nobody wants to read the rest
			return nil, http.StatusRequestEntityTooLarge
		}
		msg, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTCPQuery))
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return nil, http.StatusRequestEntityTooLarge
		}
		if err != nil {
			return nil, http.StatusRequestTimeout
		}
		return msg, 0
	}
	return nil, http.StatusMethodNotAllowed
}

// httpWhy is the body that goes with a status that is no answer.
func httpWhy(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "this is no DNS query: want ?dns= with one in base64url, or one as the body of a POST"
	case http.StatusMethodNotAllowed:
		return "a query comes by GET or POST"
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong:
		return "no honest query is that long"
	case http.StatusUnsupportedMediaType:
		return "a query is " + httpMedia
	}
	return http.StatusText(status)
}

func httpClient(remote string, local net.Addr) (Client, error) {
	from, err := parseAddrPort(remote)
	if err != nil {
		return Client{}, err
	}
	c := Client{Addr: from, Transport: HTTPS}
	if a, ok := local.(*net.TCPAddr); ok {
		c.Local = unmap(a.AddrPort()).Addr()
	}
	return c, nil
}
