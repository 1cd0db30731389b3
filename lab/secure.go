package lab

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// SecurePort is where the DNS servers that have a certificate answer DNS over
// HTTPS, over TCP and QUIC: 443 is the web servers'. DNS over QUIC has its
// usual port.
const SecurePort = 8443

// serveSecure starts the servers of addr for DNS over HTTPS (RFC 8484), by
// HTTP/2 and HTTP/3, and over QUIC (RFC 9250).
func (d *DNS) serveSecure(addr netip.Addr, view View, cert *tls.Config) error {
	handler := func(network string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil {
				return
			}
			query, err := io.ReadAll(io.LimitReader(r.Body, dns.MaxMsgSize))
			if err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/dns-message")
			d.answerBytes(query, from, view, addr, network, func(reply []byte) { w.Write(reply) })
		})
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, SecurePort)))
	if err != nil {
		return err
	}
	web := &http.Server{Handler: handler("https"), TLSConfig: cert.Clone()}
	d.running.Go(func() { web.ServeTLS(l, "", "") }) // ends with Close
	d.closers = append(d.closers, web)

	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, SecurePort)))
	if err != nil {
		return err
	}
	h3 := &http3.Server{Handler: handler("h3"), TLSConfig: http3.ConfigureTLSConfig(cert.Clone())}
	d.running.Go(func() { h3.Serve(pc) })
	d.closers = append(d.closers, h3, pc)

	qc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 853)))
	if err != nil {
		return err
	}
	settings := cert.Clone()
	settings.NextProtos = []string{"doq"}
	t := &quic.Transport{Conn: qc}
	doq, err := t.Listen(settings, nil)
	if err != nil {
		return err
	}
	d.running.Go(func() { d.acceptQUIC(doq, view, addr) })
	d.closers = append(d.closers, t, qc)
	return nil
}

func (d *DNS) acceptQUIC(l *quic.Listener, view View, addr netip.Addr) {
	for {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		d.running.Go(func() {
			for {
				s, err := conn.AcceptStream(context.Background())
				if err != nil {
					return
				}
				d.running.Go(func() {
					defer s.Close()
					query, err := io.ReadAll(io.LimitReader(s, dns.MaxMsgSize))
					if err != nil || len(query) < 2 {
						return
					}
					d.answerBytes(query[2:], addrPort(conn.RemoteAddr()), view, addr, "quic", func(reply []byte) {
						s.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
					})
				})
			}
		})
	}
}

// answerBytes is answer for a query that came in a way of its own.
func (d *DNS) answerBytes(query []byte, from netip.AddrPort, view View, server netip.Addr, network string, send func([]byte)) {
	m := new(dns.Msg)
	if m.Unpack(query) != nil {
		return
	}
	d.answer(&bytesWriter{from: from, send: send}, m, view, server, network)
}

// bytesWriter is what answer needs of a ResponseWriter.
type bytesWriter struct {
	dns.ResponseWriter
	from netip.AddrPort
	send func([]byte)
}

func (w *bytesWriter) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(w.from) }

func (w *bytesWriter) WriteMsg(m *dns.Msg) error {
	b, err := m.Pack()
	if err == nil {
		w.send(b)
	}
	return err
}
