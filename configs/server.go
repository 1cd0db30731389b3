package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// port returns the port of a scheme's servers that is not written.
func (s Scheme) port() uint16 {
	switch s {
	case SchemeTLS, SchemeQUIC:
		return 853
	case SchemeHTTPS, SchemeH3:
		return 443
	}
	return portDNS
}

// Encrypted reports whether nobody on the way to such a server can read or
// forge what is said.
func (s Scheme) Encrypted() bool { return s != SchemeUDP && s != SchemeTCP }

// overHTTP reports whether its servers have a path.
func (s Scheme) overHTTP() bool { return s == SchemeHTTPS || s == SchemeH3 }

// overTCP reports whether its servers are asked over TCP alone, which a proxy
// can carry.
func (s Scheme) overTCP() bool { return s == SchemeTCP || s == SchemeTLS || s == SchemeHTTPS }

// defaultPath is where servers are asked over HTTP that do not say.
const defaultPath = "/dns-query"

func schemes() []Scheme {
	return []Scheme{SchemeUDP, SchemeTCP, SchemeTLS, SchemeHTTPS, SchemeH3, SchemeQUIC}
}

// parseServer reads a server: an address or a name, with or without a port,
// which are spoken to over UDP, or the same after one of the schemes and "://".
// After https:// and h3:// a path may follow, and after those that are
// encrypted #name, the name that the certificate must be valid for.
func parseServer(text string) (Server, error) {
	server := Server{Scheme: SchemeUDP, Text: text}
	host := text
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		host = rest
		server.Scheme = Scheme(scheme)
		if !slices.Contains(schemes(), server.Scheme) {
			return Server{}, fmt.Errorf("no such scheme %s: it is tcp://, tls://, https://, h3:// or quic://, or nothing for UDP", quote(scheme))
		}
	}
	host, name, named := strings.Cut(host, "#")
	if named {
		if !server.Scheme.Encrypted() {
			return Server{}, errors.New("only a server of an encrypted scheme has a name to verify: tls://, https://, h3:// or quic://")
		}
		fqdn, err := parseHost(name)
		if err != nil {
			return Server{}, fmt.Errorf("name to verify: %w", err)
		}
		server.ServerName = fqdn.String()
	}
	if server.Scheme.overHTTP() {
		var path string
		host, path, _ = strings.Cut(host, "/")
		if server.Path = "/" + path; path == "" {
			server.Path = defaultPath
		}
		if strings.ContainsAny(path, "?{}% ") || printable(path) != path {
			return Server{}, errors.New("the path is plain text: nothing follows a ?, and there are no braces, blanks or %")
		}
	}
	addr, err := parseAddrPort(host, server.Scheme.port())
	switch {
	case errors.Is(err, errNotAddress) && strings.Contains(host, "/"):
		return Server{}, errors.New("nothing follows the address and the port of a server")
	case errors.Is(err, errNotAddress):
		return server, server.parseNamed(host)
	case err != nil:
		return Server{}, err
	case addr.Addr().IsUnspecified() || addr.Addr().IsMulticast():
		return Server{}, errors.New("no server has this address")
	}
	server.Addr = addr
	return server, nil
}

// parseNamed reads a name, with or without a port. What looks like an address
// is a mistyped one.
func (s *Server) parseNamed(text string) error {
	name, port, hasPort := strings.Cut(text, ":")
	host, err := parseHost(name)
	switch {
	case !strings.ContainsAny(name, "ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ"):
		return errNotAddress
	case err != nil || host.Labels() < 2:
		return errors.New("neither an IP address nor a name such as dns.google")
	}
	s.Addr = netip.AddrPortFrom(netip.Addr{}, s.Scheme.port())
	if hasPort {
		at, err := parseAddrPort("192.0.2.1:"+port, 0)
		if err != nil {
			return err
		}
		s.Addr = netip.AddrPortFrom(netip.Addr{}, at.Port())
	}
	s.Host = host.String()
	return nil
}

// Known returns where the server listens, as far as the file says.
func (s Server) Known() []netip.AddrPort {
	if s.Host == "" {
		return []netip.AddrPort{s.Addr}
	}
	all := make([]netip.AddrPort, len(s.Addresses))
	for i, a := range s.Addresses {
		all[i] = netip.AddrPortFrom(a, s.Addr.Port())
	}
	return all
}

func (s Server) same(o Server) bool {
	return s.Scheme == o.Scheme && s.Addr == o.Addr && s.Host == o.Host && s.Path == o.Path
}

// text returns the server as the file writes it: a string, or a table where it
// has more to say.
func (s Server) text() string {
	if len(s.Addresses) == 0 && len(s.Pins) == 0 {
		return tomlString(s.Text)
	}
	out := "{ server = " + tomlString(s.Text)
	if len(s.Addresses) > 0 {
		out += ", addresses = " + tomlStrings(texts(s.Addresses))
	}
	if len(s.Pins) > 0 {
		pins := make([]string, len(s.Pins))
		for i, p := range s.Pins {
			pins[i] = p.String()
		}
		out += ", pin = " + tomlStrings(pins)
	}
	return out + " }"
}

func serverTexts(servers []Server) string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.text()
	}
	return "[" + strings.Join(all, ", ") + "]"
}
