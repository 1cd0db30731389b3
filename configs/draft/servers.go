package draft

import (
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
)

// homeServers and abroadServers are parts of the addresses and names of public
// resolvers, which tell what a group of servers is for.
var (
	homeServers = []string{
		"223.5.5.5", "223.6.6.6", "2400:3200:", "alidns.com",
		"119.29.29.29", "119.28.28.28", "1.12.12.12", "120.53.53.53", "dnspod.cn", "doh.pub", "dot.pub", "2402:4e00:",
		"114.114.114.", "114.114.115.", "180.76.76.76", "1.2.4.8", "210.2.4.8", "101.226.4.6", "218.30.118.6",
		"180.184.1.1", "180.184.2.2", "117.50.10.10", "117.50.11.11", "52.80.52.52", "360.cn", "360.net", "101.6.6.6",
	}
	abroadServers = []string{
		"1.1.1.1", "1.0.0.1", "1.1.1.2", "1.1.1.3", "2606:4700:", "cloudflare-dns.com", "one.one.one.one",
		"8.8.8.8", "8.8.4.4", "2001:4860:", "dns.google", "9.9.9.9", "9.9.9.10", "149.112.112.", "2620:fe:", "quad9.net",
		"208.67.22", "opendns.com", "adguard", "94.140.14.", "nextdns.io", "mullvad.net", "185.222.222.222", "dns.sb", "76.76.2.",
	}
)

// purpose says what a group of servers is for: the name of its side.
func purpose(servers []*entry) string {
	is := map[string]int{}
	for _, s := range servers {
		text := strings.Trim(s.text, `"`)
		switch {
		case slices.ContainsFunc(homeServers, func(k string) bool { return knownAs(text, k) }):
			is[configs.SideDomestic]++
		case slices.ContainsFunc(abroadServers, func(k string) bool { return knownAs(text, k) }):
			is[configs.SideForeign]++
		case onThisHost(text):
			is["local"]++
		case isPrivate(text):
			is["office"]++
		}
	}
	for _, name := range []string{configs.SideDomestic, configs.SideForeign, "local", "office"} {
		if is[name] == len(servers) && len(servers) > 0 {
			return name
		}
	}
	return "upstream"
}

// knownAs reports whether key begins an address or is a part of the name of a
// server.
func knownAs(server, key string) bool {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	if addr := serverAddr(server); addr.IsValid() {
		a := addr.String()
		return a == key || (strings.HasSuffix(key, ".") || strings.HasSuffix(key, ":") || key == "208.67.22") && strings.HasPrefix(a, key)
	}
	return strings.ContainsAny(key, "abcdefghijklmnopqrstuvwxyz") && !strings.Contains(key, ":") && strings.Contains(server, key)
}

// serverAddr returns the address of a server that is written by it.
func serverAddr(server string) netip.Addr {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	server, _, _ = strings.Cut(server, "#")
	server, _, _ = strings.Cut(server, "/")
	if p, err := netip.ParseAddrPort(server); err == nil {
		return p.Addr()
	}
	a, _ := netip.ParseAddr(strings.Trim(server, "[]"))
	return a
}

func onThisHost(server string) bool { return serverAddr(server).IsLoopback() }

func isPrivate(server string) bool {
	a := serverAddr(server)
	return a.IsPrivate() || a.IsLinkLocalUnicast()
}

// newSide appends a side whose name is like the wanted one.
func (w *writer) newSide(name string, s side) *side {
	s.name = unused(name, func(n string) bool {
		return slices.ContainsFunc(w.sides, func(x *side) bool { return x.name == n })
	})
	if len(s.servers) > 0 {
		s.at, s.from = s.servers[0].at, s.servers[0].from
	}
	if private := slices.ContainsFunc(s.servers, func(e *entry) bool { return isPrivate(strings.Trim(e.text, `"`)) }); private && s.name != configs.SideDomestic && s.name != configs.SideForeign {
		s.more = append(s.more, &entryOf{"private", &entry{text: "true", at: s.at, from: s.from}})
	}
	if t := w.options.tunnels(); len(t) > 0 && s.name != configs.SideForeign && purpose(s.servers) == configs.SideForeign {
		s.more = append(s.more, &entryOf{"via", &entry{text: configs.Quote(t[0]), at: s.at, from: s.from}})
	}
	w.sides = append(w.sides, &s)
	return &s
}

// helper notes that a side is another program on this host.
func (r *reader) helper(s *side) {
	if len(s.servers) == 0 || !strings.HasPrefix(s.name, "local") {
		return
	}
	at, text := r.at, r.text
	r.at, r.text = s.at, s.from
	r.changed("%s is another program on this host, which has to go on running; if it was the way abroad, write ask = %q instead of %q", strings.Trim(s.servers[0].text, `"`), configs.SideForeign, s.name)
	r.at, r.text = at, text
}

// server makes a server of ours of a scheme ("" for UDP), a host and a port (0:
// the usual one), and of the name that its certificate is for.
func server(scheme, host string, port, name string) string {
	host = strings.Trim(host, "[]")
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() && (port != "" || scheme != "") {
		host = "[" + host + "]"
	}
	usual := map[string]string{"": "53", "udp": "53", "tcp": "53", "tls": "853", "quic": "853", "https": "443", "h3": "443"}
	if port != "" && port != usual[scheme] {
		host += ":" + port
	}
	if scheme != "" && scheme != "udp" {
		host = scheme + "://" + host
	}
	if name != "" && strings.Trim(name, "[]") != strings.Trim(host, "[]") {
		host += "#" + name
	}
	return host
}

// server is a server of the line that is being read, unless it cannot be one.
func (r *reader) server(text string) (*entry, bool) {
	if err := configs.CheckServer(text); err != nil {
		r.lost("%s is no server here: %v", text, err)
		return nil, false
	}
	return r.value(text), true
}

// last decides about the names of no line. A side of domestic servers leaves to
// "auto" what a tunnel is there for.
func (r *reader) decideRest(s *side) {
	if s.name == configs.SideDomestic && len(r.options.Tunnels) > 0 {
		r.changed(`with a tunnel, who is asked about a name in no list is found out (ask = "auto"): a domestic server must not decide about names abroad`)
		return
	}
	r.last.ask, r.last.at, r.last.from = s.name, r.at, r.text
	if s.name != configs.SideForeign {
		r.last.comment = append(r.last.comment, `ask = "auto" finds out for each other name whether it is at home.`)
	}
}
