package configs

import (
	"errors"
	"fmt"
	"strings"
)

const portTLS = 853

// parseServer reads a server: an address or address:port, which are spoken to
// over UDP, or either after udp://, tcp:// or tls://. After tls:// may follow
// #name, the name that the server's certificate must be valid for.
func parseServer(text string) (Server, error) {
	server := Server{Scheme: SchemeUDP, Text: text}
	port := uint16(portDNS)
	host := text
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		host = rest
		switch server.Scheme = Scheme(scheme); server.Scheme {
		case SchemeUDP, SchemeTCP:
		case SchemeTLS:
			port = portTLS
		default:
			return Server{}, fmt.Errorf("no such scheme %s: it is tcp:// or tls://, or nothing for UDP", quote(scheme))
		}
	}
	host, name, named := strings.Cut(host, "#")
	if named {
		if server.Scheme != SchemeTLS {
			return Server{}, errors.New("only a tls:// server has a name to verify")
		}
		fqdn, err := parseHost(name)
		if err != nil {
			return Server{}, fmt.Errorf("name to verify: %w", err)
		}
		server.ServerName = fqdn.String()
	}
	addr, err := parseAddrPort(host, port)
	switch {
	case errors.Is(err, errNotAddress) && strings.Contains(host, "/"):
		return Server{}, errors.New("nothing follows the address and the port of a server")
	case errors.Is(err, errNotAddress):
		return Server{}, notAnAddress(host)
	case err != nil:
		return Server{}, err
	case addr.Addr().IsUnspecified() || addr.Addr().IsMulticast():
		return Server{}, errors.New("no server has this address")
	}
	server.Addr = addr
	return server, nil
}

// notAnAddress tells a name, which nothing could resolve before the resolver
// runs, from a mistyped address.
func notAnAddress(host string) error {
	name, _, _ := strings.Cut(host, ":")
	if _, err := parseHost(name); err == nil && strings.ContainsAny(name, "ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ") {
		return errors.New("is a name, and names arrive by address: write the server's address, e.g. tls://1.1.1.1")
	}
	return errNotAddress
}
