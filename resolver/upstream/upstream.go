// Package upstream asks DNS servers.
package upstream

import (
	"context"
	"net"
	"time"
)

// Exchanger asks one server, or a group of them. Implementations are safe for
// concurrent use.
type Exchanger interface {
	// Exchange sends q and returns the reply that answers it. The Reply's
	// Tries are filled in also when err is not nil. It never keeps or changes
	// q.Msg, and returns soon after ctx ends.
	Exchange(ctx context.Context, q Query) (Reply, error)
	// String returns the server's URL as the config file writes it.
	String() string
}

// Query is one question to an upstream.
type Query struct {
	// Msg is a packed query with exactly one question and an OPT record. Its
	// ID and the case of its name are replaced on the wire, never in Msg.
	Msg []byte
	// Suspect, unless nil, is called with each reply that passed the match and
	// the URL of the server that it claims to be from, and reports whether it looks forged. Over a transport that somebody on
	// the path could forge (UDP outside a tunnel), the exchange then listens
	// for Hold longer, prefers a reply that does not look forged, and returns
	// the first suspicious one when none comes. It must not keep the reply.
	Suspect func(server string, reply []byte) bool
	// Hold is how long to listen on after a suspicious reply.
	Hold time.Duration
	// Purse pays for what the question costs beyond its first packet; nil: nobody
	// counts.
	Purse *Purse
}

// Reply is what an upstream said.
type Reply struct {
	// Msg is a packed reply that passed all checks of package wire, carrying
	// Query.Msg's ID and its spelling of the name. The caller owns it.
	Msg []byte
	// Suspicious is what Query.Suspect said of Msg.
	Suspicious bool
	// Tries are the attempts that led here, in order, the deciding one last.
	Tries []Try
}

// Server returns the URL of the server whose reply it is, "" when nobody
// replied.
func (r Reply) Server() string {
	if len(r.Tries) == 0 {
		return ""
	}
	return r.Tries[len(r.Tries)-1].Server
}

// Try is one attempt at one server.
type Try struct {
	Server string        // the server's URL
	Proto  string        // "udp", "tcp", "tls", "https", "h3" or "quic"
	Took   time.Duration // until its reply or failure
	Note   string        // why it was not the last one, or what was odd ("wrong ID, asked over tcp"); "" usually
	Err    error         // nil when it replied
}

// Dial opens a connection on the path it was made for: its sockets carry that
// path's mark. The network is "udp" or "tcp" and the address an IP and port.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)
