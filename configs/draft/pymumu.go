package draft

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"smartdns/configs"
)

// pymumu reads a smartdns.conf of github.com/pymumu/smartdns: a word and its
// values a line; the longest name decides.
type pymumu struct {
	*reader
	depth   int
	table   map[string]pymumuDo
	groups  []*pymumuGroup // the first is that of the servers for all names
	rules   []rule         // one of a name
	known   map[string]int // the rule of a name
	sets    map[string]string
	ipSets  map[string]string
	proxies map[string]string
	filter  rule
	inside  string // the group between group-begin and group-end
	ecs     string
	top     []rule // for some clients
}

// pymumuGroup is a named group of servers.
type pymumuGroup struct {
	name      string
	servers   []*entry
	bootstrap []*entry
	socks5    string
	ecs       string
	order     bool // the last of them only when the others fail
}

type pymumuDo func(*pymumu, []string)

func readPymumu(r *reader, inputs []input) {
	p := &pymumu{
		reader: r, table: pymumuTable(), groups: []*pymumuGroup{{}}, known: map[string]int{}, sets: map[string]string{}, ipSets: map[string]string{}, proxies: map[string]string{},
	}
	for _, in := range inputs {
		p.file(in.name, in.data)
	}
	p.finish()
}

func (p *pymumu) file(name string, data []byte) {
	p.lines(name, data, func(text string) {
		at, was := p.at, p.text
		all := strings.Fields(text)
		for i, f := range all {
			all[i] = strings.Trim(f, `"`)
		}
		p.directive(strings.ToLower(all[0]), all[1:])
		p.at, p.text = at, was
	})
}

func (p *pymumu) directive(key string, values []string) {
	why, known := pymumuReason(key)
	do := p.table[key]
	switch {
	case do == nil && known:
		p.note(why.kind, "%s", why.text)
	case do == nil:
	case p.inside != "" && !strings.HasPrefix(key, "server") && !strings.HasPrefix(key, "group-"):
		p.lost("in a group, rules hold for its clients only: write it into a line with clients = [...]")
	case len(values) == 0 && key != "group-end" && key != "conf-file":
		p.lost("has no value")
	default:
		do(p, values)
	}
}

// pymumuWord reports whether word begins a line of such a file.
func pymumuWord(word string) (reason, bool) {
	word = strings.ToLower(word)
	if _, ok := pymumuTable()[word]; ok {
		return reason{}, true
	}
	return pymumuReason(word)
}

func pymumuReason(key string) (reason, bool) {
	i := slices.IndexFunc(pymumuReasons, func(why reason) bool {
		return slices.Contains(strings.Fields(why.keys), key) || why.prefix != "" && strings.HasPrefix(key, why.prefix)
	})
	if i < 0 {
		return reason{}, false
	}
	return pymumuReasons[i], true
}

var pymumuReasons = []reason{
	{"speed-check-mode dualstack-ip-selection dualstack-ip-selection-threshold dualstack-ip-allow-force-aaaa max-reply-ip-num", "", Lost, "addresses are answered as the server gave them: nothing is pinged on a client's behalf"},
	{"response-mode", "", Idle, "the server that answers fastest is asked first ([side.X] choose)"},
	{"blacklist-ip ignore-ip", "", Lost, "forged answers are known by other signs here: where such an address stands for \"no such name\", put it into a list of [poison] bogus"},
	{"ip-alias ip-rules", "", Lost, "answers are never rewritten: give the names records of their own ([records] lines)"},
	{"", "log-", Idle, "smartdns logs to its standard error, which systemd keeps: journalctl -u smartdns"},
	{"", "audit-", Lost, "smartdns query explains a name; nothing is kept about what was asked"},
	{"", "dnsmasq-lease-file", Lost, "names of DHCP leases are not known: write those that matter into [records] lines"},
	{"odhcpd-lease-file mdns-lookup local-domain ddns-domain expand-ptr-from-address", "", Lost, "names of the LAN are those of [records]: lines and hosts files"},
	{"ca-file ca-path", "", Idle, "certificates are verified by those of the system"},
	{"user server-name resolv-hostname tcp-idle-time data-dir cache-file cache-checkpoint-time serve-expired-prefetch-time server-ipset-timeout ipset-timeout nftset-timeout nftset-debug max-query-limit restart-on-crash", "", Idle, "is not needed here: smartdns sees to that by itself"},
	{"", "plugin", Lost, "there are no plugins"},
	{"", "smartdns-ui.", Lost, "smartdns status says what is going on"},
	{"", "sni-proxy", Lost, "no proxy is needed: connections are routed by their addresses; name the tunnel with --tunnel"},
	{"", "tproxy", Lost, "no proxy is needed: connections are routed by their addresses; name the tunnel with --tunnel"},
	{"rr-ttl-reply-max local-ttl serve-expired-reply-ttl", "", Lost, "answers live as long as their servers say, between [cache] min_ttl and max_ttl"},
	{"https-record", "", Lost, "write the record into [records] lines as a zone file has it; https = \"strip\" of a line takes the hints out"},
	{"ipset-no-speed nftset-no-speed", "", Lost, "nothing is pinged: which way an address leaves is decided by [decide] addresses"},
	{"bind-cert-key-pass", "", Lost, "the key is read without a password: chmod 600 it"},
	{"ddr", "", Lost, "clients are told their DNS server by DHCP"},
}

// pymumuTable returns the words that have a key of ours.
func pymumuTable() map[string]pymumuDo {
	server := func(scheme string) pymumuDo { return func(p *pymumu, v []string) { p.server(scheme, v) } }
	one := func(do func(*pymumu, string)) pymumuDo { return func(p *pymumu, v []string) { do(p, v[0]) } }
	return map[string]pymumuDo{
		"server": server(""), "server-udp": server(""), "server-tcp": server("tcp"), "server-tls": server("tls"), "server-https": server("https"),
		"server-quic": server("quic"), "server-h3": server("h3"), "server-http3": server("h3"), "proxy-server": (*pymumu).proxy,
		"bind":               func(p *pymumu, v []string) { p.bind(&p.listen.dns, "53", v) },
		"bind-tcp":           func(p *pymumu, v []string) { p.bind(&p.listen.dns, "53", v) },
		"bind-tls":           func(p *pymumu, v []string) { p.bind(&p.listen.dot, "853", v) },
		"bind-https":         func(p *pymumu, v []string) { p.bind(&p.listen.doh, "443", v) },
		"bind-cert-file":     one(func(p *pymumu, v string) { p.listen.cert = p.value(p.absolute(v, "")) }),
		"bind-cert-key-file": one(func(p *pymumu, v string) { p.listen.key = p.value(p.absolute(v, "")) }),
		"conf-file":          (*pymumu).confFile, "domain-set": (*pymumu).domainSet, "ip-set": (*pymumu).ipSet,
		"address": one((*pymumu).address), "nameserver": one((*pymumu).nameserver), "domain-rules": (*pymumu).domainRules,
		"cname": one((*pymumu).cname), "srv-record": one((*pymumu).srv), "hosts-file": one((*pymumu).hosts),
		"ipset": one((*pymumu).set), "nftset": one((*pymumu).set), "bogus-nxdomain": one((*pymumu).bogus), "whitelist-ip": one((*pymumu).whitelist),
		"force-aaaa-soa": one((*pymumu).forceAAAA), "force-qtype-soa": (*pymumu).forceTypes, "edns-client-subnet": one((*pymumu).subnet),
		"dns64": one((*pymumu).setDNS64), "client-rules": (*pymumu).clientRules,
		"group-begin": one((*pymumu).groupBegin), "group-end": (*pymumu).groupEnd, "group-match": (*pymumu).groupMatch,
		"cache-size": one(func(p *pymumu, v string) { p.cacheSize(v) }), "cache-mem-size": one((*pymumu).cacheMemory),
		"cache-persist": one(func(p *pymumu, v string) { p.yes("save", v) }), "prefetch-domain": one(func(p *pymumu, v string) { p.yes("prefetch", v) }),
		"serve-expired": one((*pymumu).serveExpired), "serve-expired-ttl": one((*pymumu).serveExpiredTTL),
		"rr-ttl-min": one(func(p *pymumu, v string) { p.ttl("min_ttl", v, 0, mostMinTTL) }),
		"rr-ttl-max": one(func(p *pymumu, v string) { p.ttl("max_ttl", v, 1e9, mostTTL) }),
		"rr-ttl":     one(func(p *pymumu, v string) { p.ttl("min_ttl", v, 0, mostMinTTL); p.ttl("max_ttl", v, 1e9, mostTTL) }),
	}
}

// options cuts the -words off, each with the values that follow it.
func (p *pymumu) optionsOf(values []string) (rest []string, options [][2]string) {
	for n := 0; n < len(values); n++ {
		v := values[n]
		if len(v) < 2 || v[0] != '-' || v == "-4" || v == "-6" {
			rest = append(rest, v)
			continue
		}
		o := [2]string{strings.TrimLeft(strings.ToLower(v), "-")}
		if n+1 < len(values) && (len(values[n+1]) < 2 || values[n+1][0] != '-' || values[n+1] == "-4" || values[n+1] == "-6") {
			n++
			o[1] = values[n]
		}
		options = append(options, o)
	}
	return rest, options
}

func (p *pymumu) confFile(values []string) {
	rest, options := p.optionsOf(values)
	if len(rest) == 0 {
		p.lost("has no file")
		return
	}
	name := p.absolute(rest[0], "")
	files := []string{name}
	if strings.ContainsAny(name, "*?[") {
		files = p.directory(path.Dir(name), func(f string) bool { ok, _ := path.Match(path.Base(name), f); return ok })
	}
	if len(options) > 0 {
		p.lost("-%s: the rules of the file hold for everybody here", options[0][0])
	}
	if len(files) == 0 {
		p.idle("there is no such file")
	}
	at, text := p.at, p.text
	for _, f := range files {
		p.at, p.text = at, text
		data, err := p.read(f)
		switch {
		case slices.Contains(p.sources, f):
			p.carried()
		case err != nil:
			p.unreadable(f, err, "give it with --from once it is there")
		default:
			p.carried()
			p.sources = append(p.sources, f)
			p.depth++
			p.file(f, data)
			p.depth--
		}
	}
}

// group returns the group of a name; "" is that of all names.
func (p *pymumu) group(name string) *pymumuGroup {
	if name == "default" {
		name = ""
	}
	i := slices.IndexFunc(p.groups, func(g *pymumuGroup) bool { return g.name == name })
	if i < 0 {
		p.groups = append(p.groups, &pymumuGroup{name: name})
		i = len(p.groups) - 1
	}
	return p.groups[i]
}

func (p *pymumu) yes(key, value string) {
	switch strings.ToLower(value) {
	case "yes":
		p.carried() // the default
	case "no":
		p.cacheKey(key, p.raw("false"))
	default:
		p.lost("%q is neither yes nor no", clip(value))
	}
}

func (p *pymumu) serveExpired(value string) {
	if p.carried(); strings.EqualFold(value, "no") {
		p.cacheKey("stale", p.value("0s"))
	}
}

func (p *pymumu) serveExpiredTTL(value string) {
	if value == "0" {
		p.changed("stale answers end here after a day at the latest ([cache] stale)")
		return
	}
	p.ttl("stale", value, 0, mostTTL)
}

func (p *pymumu) cacheMemory(value string) {
	n, err := strconv.ParseUint(strings.TrimRight(strings.ToLower(value), "kmgb"), 10, 31)
	unit := map[string]uint64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[strings.TrimSuffix(strings.TrimLeft(strings.ToLower(value), "0123456789"), "b")]
	if err != nil || unit == 0 {
		p.lost("%q is no size", clip(value))
		return
	}
	mib := min(max(n*unit>>20, 4), 1024)
	p.cacheKey("size", p.value(strconv.FormatUint(mib, 10)+"MiB"))
}

func (p *pymumu) setDNS64(value string) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		p.lost("%q is no prefix", clip(value))
		return
	}
	p.dns64 = p.value(prefix.Masked().String())
}

func (p *pymumu) subnet(value string) {
	if s, ok := p.prefix(value); ok {
		p.carried()
		p.ecs = s
	}
}

func (p *pymumu) prefix(value string) (string, bool) {
	prefix, err := netip.ParsePrefix(value)
	if a, e := netip.ParseAddr(value); e == nil {
		prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || prefix.Addr().Is4In6() {
		p.lost("%q is neither an address nor a prefix", clip(value))
		return "", false
	}
	return prefix.Masked().String(), true
}

func (p *pymumu) forceAAAA(value string) {
	if p.carried(); strings.EqualFold(value, "yes") {
		p.filter.aaaa = "drop"
	}
}

func (p *pymumu) forceTypes(values []string) {
	for t := range strings.FieldsFuncSeq(strings.Join(values, ","), func(c rune) bool { return c == ',' }) {
		switch t {
		case "-":
			p.carried()
			p.filter = rule{}
		case "28":
			p.carried()
			p.filter.aaaa = "drop"
		case "64", "65", "64-65":
			p.carried()
			p.filter.https = "drop"
		default:
			p.lost("of types only AAAA (28), SVCB (64) and HTTPS (65) can be left out: aaaa and https of a line")
		}
	}
}

func (p *pymumu) ipSet(values []string) {
	name, file := setArgs(p.optionsOf(values))
	if name == "" || file == "" {
		p.lost("has no name or no file")
		return
	}
	p.carried()
	p.ipSets[name] = p.absolute(file, "")
}

func setArgs(_ []string, options [][2]string) (name, file string) {
	for _, o := range options {
		switch o[0] {
		case "name", "n":
			name = o[1]
		case "file", "f":
			file = o[1]
		}
	}
	return name, file
}

func (p *pymumu) domainSet(values []string) {
	name, file := setArgs(p.optionsOf(values))
	if name == "" || file == "" {
		p.lost("has no name or no file")
		return
	}
	p.carried()
	p.sets[name] = p.absolute(file, "")
}

func (p *pymumu) bogus(value string) {
	if set, ok := strings.CutPrefix(value, "ip-set:"); ok {
		file := p.ipSets[set]
		if file == "" {
			p.lost("no ip-set %s before this line", clip(set))
			return
		}
		p.poison = appendNew(p.poison, p.value("list:"+p.list(file, `Addresses that stand for "no such name".`)))
		return
	}
	if s, ok := p.prefix(value); ok {
		p.bogusAddress(netip.MustParsePrefix(s))
	}
}

// whitelist takes the addresses that a server may answer, as a chnroute list is
// used for those at home.
func (p *pymumu) whitelist(value string) {
	const why = "what a domestic server may answer is decided by home and abroad: ask = \"auto\""
	set, ok := strings.CutPrefix(value, "ip-set:")
	file := p.ipSets[set]
	if !ok || file == "" {
		p.lost(why)
		return
	}
	p.homePrefixes(file)
	p.changed(why + ", by these prefixes and those that are part of smartdns ([geo] sources)")
}

func (p *pymumu) hosts(value string) {
	p.records.hosts = appendNew(p.records.hosts, p.value(p.absolute(value, "")))
}

func (p *pymumu) set(string) { p.lost("%s", p.setWhy()) }

// finish makes sides of the groups and lines of the names.
func (p *pymumu) finish() {
	names := map[string]string{} // of the side of a group
	for i, g := range p.groups {
		if len(g.servers) == 0 {
			continue
		}
		s := side{servers: g.servers, bootstrap: g.bootstrap}
		wanted := purpose(g.servers)
		switch known := wanted == configs.SideDomestic || wanted == configs.SideForeign; {
		case g.name == "":
			s.comment = "Who is asked about every other name."
		case known && !slices.ContainsFunc(p.sides, func(s *side) bool { return s.name == wanted }) && asWord(g.name, "group") != wanted:
			s.comment = "The group " + clip(g.name) + "." // under the name by which auto knows it
		default:
			wanted = asWord(g.name, "group")
		}
		if g.order && len(g.servers) > 1 {
			s.more = append(s.more, &entryOf{"choose", quoted(string(configs.ChooseOrder))})
		}
		if g.socks5 != "" {
			s.more = append(s.more, &entryOf{"socks5", quoted(g.socks5)})
		}
		if ecs := firstOf(g.ecs, p.ecs); ecs != "" {
			s.more = append(s.more, &entryOf{"ecs", quoted(ecs)})
		}
		made := p.newSide(wanted, s)
		p.helper(made)
		names[g.name] = made.name
		if i == 0 && p.last.ask == configs.AskAuto && len(p.last.answer) == 0 {
			p.at, p.text = g.servers[0].at, g.servers[0].from
			p.decideRest(made)
		}
	}
	rest := p.last.ask
	if rest == "" {
		rest = configs.AskAuto
	}
	resolve := func(x *rule) bool {
		group, ok := strings.CutPrefix(x.ask, "group:")
		if x.ask == "" && len(x.answer) == 0 || ok && group == "" {
			x.ask = firstOf(names[""], rest)
			return true
		}
		if ok {
			if x.ask = names[group]; x.ask == "" {
				p.at, p.text = x.at, x.from
				p.lost("no server is of group %s", clip(group))
				return false
			}
		}
		return true
	}
	if strings.HasPrefix(p.last.ask, "group:") && !resolve(&p.last) {
		p.last.ask = configs.AskAuto
	}
	rest = p.last.ask
	var rules []rule
	for _, x := range p.rules {
		if resolve(&x) {
			x.filtered(p.filter)
			rules = append(rules, x)
		}
	}
	p.last.filtered(p.filter)
	p.writer.rules = bySpecificity(rules)
	var top []*rule
	for _, x := range p.top {
		if resolve(&x) {
			x.filtered(p.filter)
			top = append(top, &x)
		}
	}
	p.writer.rules = slices.Concat(p.writer.rules, top) // what is said about a name holds for all clients
	for _, e := range slices.Concat(p.listen.dns, p.listen.dot, p.listen.doh) {
		p.sideOfListener(e, names)
	}
}

// sideOfListener puts the name of a side where a listener names a group.
func (p *pymumu) sideOfListener(e *entry, names map[string]string) {
	before, after, ok := strings.Cut(e.text, `, side = "group:`)
	if !ok {
		return
	}
	for group, name := range names {
		if after == strings.TrimPrefix(configs.Quote(group), `"`)+" }" {
			e.text = before + ", side = " + configs.Quote(name) + " }"
			return
		}
	}
	p.at, p.text = e.at, e.from
	p.lost("no server is of the group: the listener asks whom the lines say")
	e.text = strings.TrimPrefix(before, "{ address = ")
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}
