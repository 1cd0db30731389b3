package draft

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"smartdns/configs"
)

// chinadns reads options of chinadns-ng, of a file or a command line. It asks
// both sides about names in no list and takes the domestic answer if that is at
// home: a race.
type chinadns struct {
	*reader
	depth   int
	bind    []string
	ports   []uint16
	groups  []*tagged // chn, gfw, then those of the user
	current *tagged
	first   string // the list that comes first
	rest    string // the tag of names in no list
	noIPv6  map[string]bool
	https   string
	plain   bool // certificates are not verified
}

// tagged is a list of names and the servers for it.
type tagged struct {
	tag     string
	servers []*entry
	lists   []string
	at      place
	from    string
}

// chinaOption is an option: its short and its long name, and whether it has a
// value ("", "optional" or "required").
type chinaOption struct {
	short, long, value string
	do                 func(*chinadns, string)
}

func chinaOptions() []chinaOption {
	idle := func(why string) func(*chinadns, string) { return func(c *chinadns, _ string) { c.idle("%s", why) } }
	lost := func(why string) func(*chinadns, string) { return func(c *chinadns, _ string) { c.lost("%s", why) } }
	const byItself = "smartdns sees to that by itself"
	return []chinaOption{
		{"C", "config", "required", (*chinadns).config},
		{"b", "bind-addr", "required", func(c *chinadns, v string) { c.carried(); c.bind = append(c.bind, v) }},
		{"l", "bind-port", "required", (*chinadns).bindPort},
		{"c", "china-dns", "required", func(c *chinadns, v string) { c.upstreams(c.groups[0], v) }},
		{"t", "trust-dns", "required", func(c *chinadns, v string) { c.upstreams(c.groups[1], v) }},
		{"m", "chnlist-file", "required", func(c *chinadns, v string) { c.nameLists(c.groups[0], v) }},
		{"g", "gfwlist-file", "required", func(c *chinadns, v string) { c.nameLists(c.groups[1], v) }},
		{"M", "chnlist-first", "", func(c *chinadns, _ string) { c.carried(); c.first = "chn" }},
		{"d", "default-tag", "required", func(c *chinadns, v string) { c.carried(); c.rest = v }},
		{"a", "add-tagchn-ip", "optional", func(c *chinadns, _ string) {
			c.idle("smartdns owns its sets: addresses at home leave directly by [decide] addresses")
		}},
		{"A", "add-taggfw-ip", "required", func(c *chinadns, _ string) { c.lost("%s", c.setWhy()) }},
		{"4", "ipset-name4", "required", idle("prefixes at home are part of smartdns: it asks no set what is at home")},
		{"6", "ipset-name6", "required", idle("prefixes at home are part of smartdns: it asks no set what is at home")},
		{"", "group", "required", (*chinadns).group},
		{"", "group-dnl", "required", func(c *chinadns, v string) { c.inGroup(func(g *tagged) { c.nameLists(g, v) }) }},
		{"", "group-upstream", "required", func(c *chinadns, v string) { c.inGroup(func(g *tagged) { c.upstreams(g, v) }) }},
		{"", "group-ipset", "required", func(c *chinadns, _ string) { c.lost("%s", c.setWhy()) }},
		{"N", "no-ipv6", "optional", (*chinadns).filterIPv6},
		{"", "filter-qtype", "required", (*chinadns).filterTypes},
		{"", "cache", "required", func(c *chinadns, v string) { c.cacheSize(v) }},
		{"", "cache-stale", "required", func(c *chinadns, v string) { c.ttl("stale", v, 0, mostTTL) }},
		{"", "cache-refresh", "required", idle("what is asked for often is fetched before it expires ([cache] prefetch)")},
		{"", "cache-nodata-ttl", "required", lost("answers live as long as their servers say, between [cache] min_ttl and max_ttl")},
		{"", "cache-ignore", "required", lost("every answer is kept for its TTL: smartdns cache flush forgets one")},
		{"", "cache-db", "required", idle("the cache is kept over a restart ([cache] save)")},
		{"", "verdict-cache", "required", idle("verdicts are kept, over restarts too: smartdns verdicts")},
		{"", "verdict-cache-db", "required", idle("verdicts are kept, over restarts too: smartdns verdicts")},
		{"", "hosts", "optional", (*chinadns).hosts},
		{"", "dns-rr-ip", "required", (*chinadns).rr},
		{"", "cert-verify", "", func(c *chinadns, _ string) { c.idle("certificates are always verified"); c.plain = false }},
		{"", "ca-certs", "required", idle("certificates are verified by those of the system")},
		{"", "no-ipset-blacklist", "", idle("special addresses never get into a set")},
		{"o", "timeout-sec", "required", idle(byItself)},
		{"p", "repeat-times", "required", idle("forged answers to the foreign side are avoided by the tunnel or by tls://, not by asking again")},
		{"n", "noip-as-chnip", "", lost("an answer without addresses says nothing about home: put such names into a list")},
		{"f", "fair-mode", "", idle(byItself)},
		{"r", "reuse-port", "", idle(byItself)},
		{"v", "verbose", "", idle("smartdns query explains a name; smartdns run -v says more")},
		{"V", "version", "", idle("is not a setting")},
		{"h", "help", "", idle("is not a setting")},
	}
}

// findChinaDNS finds an option by either name, with or without dashes.
func findChinaDNS(word string) (chinaOption, bool) {
	word = strings.TrimLeft(word, "-")
	options := chinaOptions()
	i := slices.IndexFunc(options, func(o chinaOption) bool { return word != "" && (o.short == word || o.long == word) })
	if i < 0 {
		return chinaOption{}, false
	}
	return options[i], true
}

func readChinaDNS(r *reader, inputs []input) {
	c := &chinadns{reader: r, groups: []*tagged{{tag: "chn"}, {tag: "gfw"}}, first: "gfw", rest: "none", noIPv6: map[string]bool{}, plain: true}
	for _, in := range inputs {
		if in.args != nil {
			c.arguments(in.name, in.args)
		} else {
			c.file(in.name, in.data)
		}
	}
	c.finish()
}

func (c *chinadns) file(name string, data []byte) {
	c.lines(name, data, func(text string) {
		at, was := c.at, c.text
		word, value, _ := strings.Cut(text, " ")
		if o, ok := findChinaDNS(word); ok {
			c.take(o, strings.TrimSpace(value))
		}
		c.at, c.text = at, was
	})
}

func (c *chinadns) take(o chinaOption, value string) {
	if o.value == "required" && value == "" {
		c.lost("has no value")
		return
	}
	o.do(c, value)
}

// arguments reads a command line: -c VALUE, -cVALUE, --long VALUE, --long=VALUE.
func (c *chinadns) arguments(name string, args []string) {
	for n := 0; n < len(args); n++ {
		word := args[n]
		long, value, has := strings.Cut(word, "=")
		if !strings.HasPrefix(word, "--") {
			if long, value, has = word, "", false; len(word) > 2 && word[0] == '-' {
				long, value, has = word[:2], word[2:], true
			}
		}
		o, ok := findChinaDNS(long)
		c.line(place{name, n + 1}, word)
		if !ok || !strings.HasPrefix(word, "-") {
			c.unsettled()
			continue
		}
		next := n+1 < len(args) && (!strings.HasPrefix(args[n+1], "-") || o.value == "required")
		if !has && o.value != "" && next {
			n++
			value = args[n]
			c.text = clip(word + " " + value)
		}
		c.take(o, strings.Trim(value, `'"`))
		c.unsettled()
	}
}

func (c *chinadns) config(value string) {
	p := c.absolute(value, "")
	data, err := c.read(p)
	if err != nil || c.depth > 8 {
		c.lost("%s cannot be read: give it with --from", p)
		return
	}
	c.carried()
	c.sources = append(c.sources, p)
	c.depth++
	c.file(p, data)
	c.depth--
}

func (c *chinadns) bindPort(value string) {
	text, proto, _ := strings.Cut(value, "@")
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		c.lost("%q is no port", clip(text))
		return
	}
	c.carried()
	c.ports = append(c.ports, uint16(n))
	if proto == "tcp" || proto == "udp" {
		c.changed("DNS is served over UDP and TCP alike")
	}
}

// upstreams reads a list of SCHEME://NAME@ADDRESS#PORT?OPTION.
func (c *chinadns) upstreams(g *tagged, value string) {
	for text := range strings.SplitSeq(value, ",") {
		text, _, _ = strings.Cut(strings.TrimSpace(text), "?")
		scheme, rest, ok := strings.Cut(text, "://")
		if !ok {
			scheme, rest = "", text
		}
		name, host, ok := strings.Cut(rest, "@")
		if !ok {
			name, host = "", rest
		}
		host, port, _ := strings.Cut(host, "#")
		if scheme != "tls" {
			name = ""
		}
		if e, ok := c.reader.server(server(scheme, host, port, name)); ok {
			g.servers = appendNew(g.servers, e)
			g.at, g.from = c.at, c.text
			if scheme == "tls" && c.plain && name == "" {
				c.changed("its certificate is verified here, for %s: write tls://%s#NAME if it is for a name", host, host)
			}
		}
	}
}

func (c *chinadns) nameLists(g *tagged, value string) {
	for p := range strings.SplitSeq(value, ",") {
		if p == "-" {
			c.lost("standard input is no list: write the names into a file")
			continue
		}
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		g.lists = append(g.lists, c.list(c.absolute(p, ""), ""))
		if g.from == "" {
			g.at, g.from = c.at, c.text
		}
		if path.Ext(p) == ".gz" {
			c.carried()
		}
	}
}

func (c *chinadns) group(name string) {
	c.carried()
	switch i := slices.IndexFunc(c.groups, func(g *tagged) bool { return g.tag == name }); {
	case i >= 0:
		c.current = c.groups[i]
	default:
		c.current = &tagged{tag: name, at: c.at, from: c.text}
		c.groups = append(c.groups, c.current)
	}
}

func (c *chinadns) inGroup(do func(*tagged)) {
	if c.current == nil {
		c.lost("stands before any group")
		return
	}
	do(c.current)
}

// filterIPv6 takes -N: nothing, or rules of either notation.
func (c *chinadns) filterIPv6(value string) {
	if value == "" {
		c.carried()
		c.noIPv6["*"] = true
		return
	}
	for x := range strings.SplitSeq(value, ",") {
		tag, named := strings.CutPrefix(x, "tag:")
		base, by, _ := strings.Cut(tag, "@")
		switch {
		case named && by == "":
			c.carried()
			c.noIPv6[base] = true
		case named || strings.HasPrefix(x, "ip:"):
			c.lost("IPv6 addresses are left out by name (aaaa = \"drop\"), and where their path has no IPv6, not by where they are")
		default:
			c.letters(x)
		}
	}
}

// letters takes the older notation of -N.
func (c *chinadns) letters(rules string) {
	for _, l := range rules {
		switch tag := map[rune]string{'a': "*", 'm': "chn", 'g': "gfw", 'n': "none", 'c': "chn", 't': "gfw"}[l]; {
		case tag != "":
			c.carried()
			c.noIPv6[tag] = true
		default:
			c.lost("IPv6 addresses are left out by name (aaaa = \"drop\"), and where their path has no IPv6, not by where they are")
		}
	}
}

func (c *chinadns) filterTypes(value string) {
	for t := range strings.SplitSeq(value, ",") {
		switch t {
		case "28":
			c.carried()
			c.noIPv6["*"] = true
		case "64", "65":
			c.carried()
			c.https = "drop"
		default:
			c.lost("of types only AAAA (28), SVCB (64) and HTTPS (65) can be left out: aaaa and https of a line")
		}
	}
}

func (c *chinadns) hosts(value string) {
	if value == "" {
		value = "/etc/hosts"
	}
	c.records.hosts = appendNew(c.records.hosts, c.value(c.absolute(value, "")))
}

// rr takes NAME,NAME=ADDRESS,ADDRESS.
func (c *chinadns) rr(value string) {
	names, addrs, ok := strings.Cut(value, "=")
	if !ok {
		c.lost("is written NAMES=ADDRESSES")
		return
	}
	for n := range strings.SplitSeq(names, ",") {
		for text := range strings.SplitSeq(addrs, ",") {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				c.lost("%q is no address", clip(text))
				continue
			}
			c.record(n, addressType(a.String()), a.Unmap().String())
		}
	}
}

func (c *chinadns) finish() {
	for _, b := range c.bindings() {
		c.listen.dns = appendNew(c.listen.dns, b)
	}
	order := slices.Concat(c.groups[2:], []*tagged{c.groups[1], c.groups[0]})
	if c.first == "chn" {
		order = slices.Concat(c.groups[2:], c.groups[:2])
	}
	ask := map[string]string{}
	for _, g := range c.groups {
		ask[g.tag] = c.sideOf(g)
	}
	for _, g := range order {
		c.at, c.text = g.at, g.from
		x := rule{ask: ask[g.tag], https: c.https}
		if c.noIPv6["*"] || c.noIPv6[g.tag] {
			x.aaaa = "drop"
		}
		if g.tag == "null" {
			x = rule{answer: []string{"nxdomain"}}
		} else if x.ask == "" {
			if len(g.lists) > 0 {
				c.lost("group %s has no server", g.tag)
			}
			continue
		}
		for _, l := range g.lists {
			x.match = append(x.match, "list:"+l)
		}
		if g.tag == "chn" && len(g.lists) == 0 && c.rest == "none" {
			x.match = []string{"list:" + configs.ListCNDomains}
		}
		if x.match != nil {
			c.rule(x)
		}
	}
	if c.rest == "none" {
		c.auto = string(configs.Race)
	} else if side := ask[c.rest]; side != "" {
		c.last.ask = side
	}
	c.last.https = c.https
	if c.noIPv6["*"] || c.noIPv6[c.rest] {
		c.last.aaaa = "drop"
	}
}

// sideOf makes a group of servers a side, and returns its name; "" without
// servers.
func (c *chinadns) sideOf(g *tagged) string {
	names := map[string]string{"chn": configs.SideDomestic, "gfw": configs.SideForeign}
	name, known := names[g.tag]
	switch {
	case g.tag == "null":
		return ""
	case known && len(g.servers) == 0:
		return name // with the servers it has by default
	case len(g.servers) == 0:
		return ""
	case !known:
		name = asWord(g.tag, "group")
	}
	s := c.newSide(name, side{servers: g.servers})
	if g.tag == "gfw" && purpose(g.servers) == "local" {
		c.at, c.text = g.at, g.from
		s.more = append(s.more, &entryOf{"via", c.value("direct")})
		c.changed("%s is another program on this host, which has to go on running as the way abroad; with a tunnel, take servers = [\"tls://1.1.1.1\"] without via instead", strings.Trim(g.servers[0].text, `"`))
	}
	return s.name
}

// bindings are where it listens.
func (c *chinadns) bindings() []*entry {
	if len(c.bind) == 0 && len(c.ports) == 0 {
		return nil
	}
	if len(c.bind) == 0 {
		c.bind = []string{"127.0.0.1"}
	}
	if len(c.ports) == 0 {
		c.ports = []uint16{65353}
	}
	var all []*entry
	for _, host := range c.bind {
		for _, port := range c.ports {
			text, err := c.address(host, port)
			if err != nil {
				c.at, c.text = place{c.sources[0], 0}, fmt.Sprintf("bind-addr %s", clip(host))
				c.lost("%v", err)
				continue
			}
			all = append(all, quoted(text))
		}
	}
	return all
}
