package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"smartdns/routing"
)

// needsBootstrap reports whether somebody has to be asked where the server is.
func (s Server) needsBootstrap() bool { return s.Host != "" && len(s.Addresses) == 0 }

// bootstrap reads who is asked for the addresses of a side's servers. Without
// the key that is the side's own servers by address; where it has none, the
// default servers of where its path leads. It is never another side's path.
func (c converter) bootstrap(raw rawStrings, side Side, own []netip.AddrPort) []Server {
	var all []Server
	for _, item := range raw.items {
		server, ok := c.server(table[rawServer]{place: item.place, body: rawServer{Server: item}}, own, all)
		switch {
		case !ok:
		case server.Host != "":
			c.addf(item.place, "%s is a name: a server that tells where others are is written by its address", quote(item.value))
		default:
			all = append(all, server)
		}
	}
	if !slices.ContainsFunc(side.Servers, Server.needsBootstrap) || len(raw.items) > 0 {
		return all
	}
	for _, s := range side.Servers {
		if s.Host == "" && (side.SOCKS5 == (Proxy{}) || s.Scheme.overTCP()) {
			all = append(all, s)
		}
	}
	if len(all) > 0 {
		return all
	}
	near := SideDomestic
	if side.Name == SideForeign || side.Via != routing.Direct || side.SOCKS5 != (Proxy{}) {
		near = SideForeign // encrypted: nobody on its way can forge where a server is
	}
	for _, text := range defaultServers()[near] {
		server, err := parseServer(text)
		if err == nil {
			all = append(all, server)
		}
	}
	return all
}

// checkProxied says which servers a proxy cannot carry.
func (c converter) checkProxied(raw table[rawSide], side Side) {
	if side.SOCKS5 == (Proxy{}) {
		return
	}
	for _, s := range slices.Concat(side.Servers, side.Bootstrap) {
		if !s.Scheme.overTCP() {
			c.addf(raw.body.SOCKS5.place, "%s is asked over UDP, which the proxy does not carry: write tcp://, tls:// or https://", quote(s.Text))
		}
	}
}

// socks5 reads "127.0.0.1:1080" or "user:password@127.0.0.1:1080"; "socks5://"
// may stand before it.
func (c converter) socks5(raw rawString) Proxy {
	if !raw.given() || raw.value == "" {
		return Proxy{}
	}
	var p Proxy
	text := strings.TrimPrefix(raw.value, "socks5://")
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		var ok bool
		p.User, p.Password, ok = strings.Cut(text[:i], ":")
		text = text[i+1:]
		if !ok || p.User == "" || p.Password == "" || len(p.User) > 255 || len(p.Password) > 255 {
			c.addf(raw.place, `before the @ stands "user:password", each of at most 255 bytes`)
			return Proxy{}
		}
		if strings.HasPrefix(p.Password, "//") {
			c.addf(raw.place, "no scheme but socks5:// is spoken to a proxy")
			return Proxy{}
		}
		if p.Password == hidden {
			c.addf(raw.place, "%s stands for a password that was not printed: write the password itself", hidden)
			return Proxy{}
		}
	}
	addr, err := parseAddrPort(text, 1080)
	if errors.Is(err, errNotAddress) {
		err = errors.New(`a proxy is written by its address: "127.0.0.1:1080" or "user:password@127.0.0.1:1080"`)
	}
	if err != nil {
		c.addf(raw.place, "%s", err)
		return Proxy{}
	}
	p.Addr = addr
	return p
}

// The words of ecs beside a prefix.
const (
	ecsOff    = "off"
	ecsClient = "client"
)

func (c converter) ecs(raw rawString) ECS {
	switch {
	case !raw.given() || raw.value == ecsOff:
		return ECS{}
	case raw.value == ecsClient:
		return ECS{Client: true}
	}
	prefix, err := parsePrefix(raw.value)
	if err != nil {
		c.addf(raw.place, `%s: it is "off", "client" or a prefix such as 114.240.0.0/24`, quote(raw.value))
		return ECS{}
	}
	return ECS{Prefix: prefix}
}

// String returns it as the file writes it.
func (e ECS) String() string {
	switch {
	case e.Client:
		return ecsClient
	case e.Prefix.IsValid():
		return e.Prefix.String()
	}
	return ecsOff
}

// doubt says what is odd about a server of side s, or "".
func (server Server) doubt(s Side) string {
	scheme, port := server.Scheme, server.Addr.Port()
	plain := !scheme.Encrypted()
	switch {
	case s.Name == SideForeign && s.Via == routing.Direct && s.SOCKS5 == (Proxy{}) && plain && !server.Addr.Addr().IsLoopback():
		return "asked directly without encryption, so its answers can be forged on the way: write tls:// or a tunnel's name after via"
	case plain && port == SchemeTLS.port():
		return "853 is the port of tls:// servers"
	case !plain && port == portDNS:
		return fmt.Sprintf("53 is not the port of %s:// servers, which is %d", scheme, scheme.port())
	}
	return ""
}
