package draft

import (
	"net/netip"
	"net/url"
	"strings"

	"smartdns/configs"
)

// server takes server and its kin: ADDRESS[:PORT], NAME[:PORT] or a URL, then
// options.
func (p *pymumu) server(scheme string, values []string) {
	rest, options := p.optionsOf(values)
	if len(rest) == 0 {
		p.lost("has no server")
		return
	}
	if len(rest) > 1 {
		p.lost("%q is no option of a server", clip(rest[1]))
	}
	text := p.serverText(scheme, rest[0])
	var groups, addresses []string
	var pin, name string
	bootstrap, alone, last := false, false, false
	ecs, socks5 := "", ""
	for _, o := range options {
		switch o[0] {
		case "group", "g":
			groups = append(groups, o[1])
		case "exclude-default-group", "e":
			alone = true
		case "bootstrap-dns", "b":
			bootstrap = true
		case "spki-pin":
			pin = o[1]
		case "tls-host-verify", "host-name":
			if o[1] != "-" && (name == "" || o[0] == "tls-host-verify") {
				name = o[1]
			}
		case "host-ip":
			addresses = append(addresses, o[1])
		case "subnet":
			ecs, _ = p.prefix(o[1])
		case "proxy", "p":
			if socks5 = p.proxies[o[1]]; socks5 == "" {
				p.lost("no SOCKS5 proxy %s before this line: name a tunnel with --tunnel, or write socks5 of the side", clip(o[1]))
			}
		case "fallback":
			last = true
		case "no-check-certificate", "k":
			p.changed("certificates are always verified: for a key of its own give the server a pin")
		case "interface", "set-mark":
			p.changed("the server is asked on the path of its side: via = \"wg0\" for one behind a tunnel")
		case "blacklist-ip", "whitelist-ip":
			p.lost("-%s: whether an answer may be is decided by home and abroad (ask = \"auto\") and [poison]", o[0])
		default:
			p.idle("-%s is not needed here", clip(o[0]))
		}
	}
	if name != "" && !strings.Contains(text, "#") && !strings.EqualFold(name, serverHost(text)) {
		text += "#" + name
	}
	if err := configs.CheckServer(text); err != nil {
		p.lost("%s is no server here: %v", clip(text), err)
		return
	}
	e := p.value(text)
	if pin != "" || len(addresses) > 0 && !serverAddr(text).IsValid() {
		full := "{ server = " + e.text
		if len(addresses) > 0 {
			full += ", addresses = [" + quotedList(addresses) + "]"
		}
		if pin != "" {
			full += ", pin = " + configs.Quote(pin)
		}
		e = p.raw(full + " }")
	}
	if p.inside != "" {
		groups, alone = append(groups, p.inside), true
	}
	if !alone {
		groups = append(groups, "")
	}
	if bootstrap && serverAddr(text).IsValid() {
		p.groups[0].bootstrap = appendNew(p.groups[0].bootstrap, p.value(text))
		if len(groups) == 0 {
			return
		}
	}
	if len(groups) == 0 {
		p.lost("it is in no group, and not in that of all names")
	}
	for _, g := range groups {
		into := p.group(g)
		into.servers = appendNew(into.servers, e)
		into.ecs, into.socks5 = firstOf(into.ecs, ecs), firstOf(into.socks5, socks5)
		into.order = into.order || last
	}
}

func quotedList(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = configs.Quote(s)
	}
	return strings.Join(out, ", ")
}

// serverText is a server as we write it.
func (p *pymumu) serverText(scheme, text string) string {
	if s, rest, ok := strings.Cut(text, "://"); ok {
		if scheme == "" || scheme == "h3" || s != "https" {
			scheme = map[string]string{"udp": "", "http3": "h3", "https": firstOf(scheme, "https")}[s]
			if scheme == "" && s != "udp" {
				scheme = s
			}
		}
		text = rest
	}
	if scheme == "https" || scheme == "h3" {
		return scheme + "://" + text
	}
	text = strings.TrimSuffix(text, "/")
	host, port := text, ""
	if a, err := netip.ParseAddrPort(text); err == nil {
		u := url.URL{Host: text}
		host, port = a.Addr().String(), u.Port()
	} else if strings.Count(text, ":") == 1 {
		host, port, _ = strings.Cut(text, ":")
	}
	return server(scheme, host, port, "")
}

// serverHost returns the name or address in a server.
func serverHost(text string) string {
	if _, rest, ok := strings.Cut(text, "://"); ok {
		text = rest
	}
	text, _, _ = strings.Cut(text, "/")
	host, _, _ := strings.Cut(text, ":")
	return host
}

// proxy takes proxy-server URL -name NAME.
func (p *pymumu) proxy(values []string) {
	rest, options := p.optionsOf(values)
	name := ""
	for _, o := range options {
		if o[0] == "name" {
			name = o[1]
		}
	}
	if len(rest) != 1 || name == "" {
		p.lost("has no address or no -name")
		return
	}
	text, ok := strings.CutPrefix(rest[0], "socks5://")
	if !ok {
		p.lost("only a SOCKS5 proxy can carry queries ([side.X] socks5)")
		return
	}
	p.carried()
	p.proxies[name] = strings.TrimSuffix(text, "/")
}

// bind takes [ADDRESS]:PORT[@DEVICE] and options.
func (p *pymumu) bind(to *[]*entry, usual string, values []string) {
	rest, options := p.optionsOf(values)
	if len(rest) == 0 {
		p.lost("has no address")
		return
	}
	if len(rest) > 1 {
		p.lost("%q is no option of a listener", clip(rest[1]))
	}
	text, device, _ := strings.Cut(rest[0], "@")
	group := ""
	for _, o := range options {
		switch o[0] {
		case "group", "g":
			group = o[1]
		case "force-aaaa-soa", "no-rule-addr", "no-rule-nameserver", "no-rules", "no-rule-soa", "force-https-soa":
			p.lost("-%s: a listener can have a side of its own; anything else goes into a line with clients = [...]", o[0])
		default:
			p.idle("-%s is not needed here", clip(o[0]))
		}
	}
	if device != "" && usual == "53" {
		p.listen.lan = appendNew(p.listen.lan, p.value(device))
		p.changed("clients of %s are served, and what they send is routed by [decide]; redirect = false leaves their DNS to others alone", device)
	}
	host, port := text, usual
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") && (strings.HasPrefix(text, "[") || strings.Count(text, ":") == 1) {
		host, port = text[:i], text[i+1:]
	}
	hosts := []string{strings.Trim(host, "[]")}
	if hosts[0] == "" || hosts[0] == "::" || hosts[0] == "*" {
		hosts = []string{"0.0.0.0", "::"}
	}
	for _, h := range hosts {
		addr := server("udp", h, "", "")
		if a, err := netip.ParseAddr(h); err == nil && a.Is6() {
			addr = "[" + h + "]"
		}
		e := p.value(strings.TrimPrefix(addr, "udp://") + ":" + port)
		if group != "" && group != "default" {
			e = p.raw("{ address = " + e.text + ", side = " + configs.Quote("group:"+group) + " }")
		}
		*to = appendNew(*to, e)
	}
}
