package draft

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"smartdns/configs"
)

// dnsmasq reads the configuration of dnsmasq(8), in which the longest name
// decides, and several lines about one name add up.
type dnsmasq struct {
	*reader
	depth   int // of conf-file in conf-file
	port    uint16
	servers map[string][]*entry // of a name; "" for the rest
	order   []string            // names of servers, as they came
	answers map[string][]string // addresses of a name
	rules   []rule
	filter  rule // what aaaa and https all lines have
	whole   map[string]bool
	flags   map[string]place
	table   map[string]dnsmasqDo
}

func readDnsmasq(r *reader, inputs []input) {
	d := &dnsmasq{
		reader: r, port: 53, servers: map[string][]*entry{}, answers: map[string][]string{},
		whole: map[string]bool{}, flags: map[string]place{}, table: dnsmasqTable(),
	}
	for _, in := range inputs {
		d.file(in.name, in.data)
	}
	d.finish()
}

func (d *dnsmasq) file(name string, data []byte) {
	if d.whole[name] {
		return
	}
	d.whole[name] = true
	if d.asList(name, data) {
		return
	}
	d.lines(name, data, func(text string) {
		at, was := d.at, d.text
		key, value, _ := strings.Cut(text, "=")
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
		d.directive(strings.TrimLeft(key, "-"), value)
		d.at, d.text = at, was // a conf-file has moved them
	})
}

// directive takes one line.
func (d *dnsmasq) directive(key, value string) {
	if do, ok := d.table[key]; ok {
		do(d, value)
		return
	}
	for _, why := range dnsmasqReasons {
		if slices.Contains(strings.Fields(why.keys), key) || why.prefix != "" && strings.HasPrefix(key, why.prefix) {
			d.note(why.kind, "%s", why.text)
			return
		}
	}
}

// dnsmasqIdle reports whether word is an option of dnsmasq without a key of
// ours.
func dnsmasqIdle(word string) bool {
	return slices.ContainsFunc(dnsmasqReasons, func(why reason) bool {
		return slices.Contains(strings.Fields(why.keys), word) || why.prefix != "" && strings.HasPrefix(word, why.prefix)
	})
}

// reason is what becomes of options that have no key of ours.
type reason struct {
	keys   string
	prefix string
	kind   Kind
	text   string
}

var dnsmasqReasons = []reason{
	{"", "dhcp-", Lost, "smartdns gives out no addresses: let dnsmasq go on doing that, with port=0 in its file, and the address of this host as dhcp-option=6"},
	{"enable-ra ra-param read-ethers bootp-dynamic quiet-dhcp quiet-dhcp6 quiet-ra log-dhcp leasefile-ro script-arp shared-network", "", Lost, "smartdns gives out no addresses: let dnsmasq go on doing that, with port=0 in its file"},
	{"", "tftp-", Lost, "smartdns serves no files: let dnsmasq go on doing that, with port=0 in its file"},
	{"enable-tftp pxe-prompt pxe-service", "", Lost, "smartdns serves no files: let dnsmasq go on doing that, with port=0 in its file"},
	{"", "auth-", Lost, "smartdns is no authoritative server: zones of your own go into [records] zones"},
	{"", "dnssec", Lost, "DNSSEC is passed through, not validated: clients that validate can"},
	{"trust-anchor proxy-dnssec", "", Lost, "DNSSEC is passed through, not validated: clients that validate can"},
	{"user group pid-file keep-in-foreground no-daemon conf-script bind-interfaces bind-dynamic no-ping no-ident interface-name-warn domain-suffix cache-rr", "", Idle, "is not needed here"},
	{"log-queries log-facility log-async log-debug quiet", "", Idle, "smartdns logs to its standard error, which systemd keeps: journalctl -u smartdns; smartdns query explains a name"},
	{"no-poll clear-on-reload no-round-robin localise-queries edns-packet-max dns-forward-max max-tcp-connections min-port max-port port-limit query-port dns-loop-detect fast-dns-retry rebind-localhost-ok selfmx localmx", "", Idle, "is not needed here: smartdns sees to that by itself"},
	{"no-negcache neg-ttl local-ttl max-cache-ttl-local use-dhcp-ttl", "", Lost, "answers live as long as their servers say, between [cache] min_ttl and max_ttl"},
	{"except-interface no-dhcp-interface no-dhcpv4-interface no-dhcpv6-interface", "", Idle, "only the addresses in [listen] dns and the interfaces in lan are served"},
	{"local-service", "", Idle, "only this host, the LAN and [listen] clients are ever answered"},
	{"ignore-address", "", Lost, "forged answers are known by other signs here: where such an address stands for \"no such name\", put it into a list of [poison] bogus"},
	{"stop-dns-rebind", "", Idle, "private addresses in answers of public names are never given here"},
	{"alias", "", Lost, "answers are never rewritten: give the names records of their own ([records] lines)"},
	{"add-mac add-cpe-id umbrella strip-mac strip-subnet", "", Lost, "servers are told nothing about clients but, where wanted, their network ([side.X] ecs)"},
	{"domain expand-hosts", "", Lost, "hosts files are taken as they are: write the whole name (nas.lan) in them"},
	{"interface-name dynamic-host synth-domain", "", Lost, "there are no records made of interfaces or ranges: write them into [records] lines"},
	{"conntrack connmark-allowlist connmark-allowlist-enable", "", Lost, "smartdns sets the marks of connections itself, by the lines of [decide]"},
	{"enable-dbus enable-ubus dumpfile dumpmask", "", Lost, "there is nothing like it: smartdns status and smartdns query --json tell programs what is going on"},
	{"filter-A", "", Lost, "IPv4 addresses are always answered"},
}

type dnsmasqDo func(*dnsmasq, string)

// dnsmasqTable returns the options that have a key of ours.
func dnsmasqTable() map[string]dnsmasqDo {
	return map[string]dnsmasqDo{
		"server": (*dnsmasq).server, "local": (*dnsmasq).server, "rev-server": (*dnsmasq).revServer, "address": (*dnsmasq).answer,
		"resolv-file": (*dnsmasq).resolvFile, "servers-file": (*dnsmasq).confFile, "conf-file": (*dnsmasq).confFile, "conf-dir": (*dnsmasq).confDir,
		"all-servers": (*dnsmasq).flag, "strict-order": (*dnsmasq).flag, "no-resolv": (*dnsmasq).flag,
		"port": (*dnsmasq).setPort, "listen-address": (*dnsmasq).listenAddress, "interface": (*dnsmasq).interfaces,
		"addn-hosts": (*dnsmasq).hostsFile, "hostsdir": (*dnsmasq).hostsDir, "no-hosts": (*dnsmasq).flag,
		"host-record": (*dnsmasq).hostRecord, "cname": (*dnsmasq).cname, "txt-record": (*dnsmasq).txt, "ptr-record": (*dnsmasq).ptr,
		"srv-host": (*dnsmasq).srv, "mx-host": (*dnsmasq).mx, "caa-record": (*dnsmasq).caa, "naptr-record": (*dnsmasq).noRecord, "dns-rr": (*dnsmasq).noRecord,
		"ipset": (*dnsmasq).set, "nftset": (*dnsmasq).set, "bogus-nxdomain": (*dnsmasq).bogus, "rebind-domain-ok": (*dnsmasq).rebindOK,
		"bogus-priv": (*dnsmasq).bogusPriv, "domain-needed": (*dnsmasq).domainNeeded, "add-subnet": (*dnsmasq).addSubnet,
		"filter-AAAA": (*dnsmasq).filterAAAA, "filter-rr": (*dnsmasq).filterRR,
		"cache-size": (*dnsmasq).size, "min-cache-ttl": (*dnsmasq).minTTL, "max-cache-ttl": (*dnsmasq).maxTTL, "max-ttl": (*dnsmasq).maxTTL,
		"use-stale-cache": (*dnsmasq).stale,
	}
}

// flag remembers an option without a value.
func (d *dnsmasq) flag(string) {
	d.carried()
	d.flags[strings.TrimLeft(strings.SplitN(d.text, "=", 2)[0], "-")] = d.at
}

// confFile reads a file that the line names.
func (d *dnsmasq) confFile(value string) {
	p := d.absolute(value, "")
	data, err := d.read(p)
	switch {
	case err != nil:
		d.unreadable(p, err, "give it with --from once it is there")
	case d.depth > 8:
		d.lost("files name each other in a circle")
	default:
		d.carried()
		d.sources = append(d.sources, p)
		d.depth++
		d.file(p, data)
		d.depth--
	}
}

// confDir reads the files of a directory: all, those that end as is said, or all
// but those.
func (d *dnsmasq) confDir(value string) {
	dir, filter, _ := strings.Cut(value, ",")
	var only, not []string
	for f := range strings.SplitSeq(filter, ",") {
		switch f = strings.TrimSpace(f); {
		case f == "":
		case f[0] == '*':
			only = append(only, f[1:])
		default:
			not = append(not, f)
		}
	}
	ends := func(name string) func(string) bool { return func(s string) bool { return strings.HasSuffix(name, s) } }
	files := d.directory(d.absolute(dir, ""), func(name string) bool {
		return name[0] != '.' && name[0] != '#' && !strings.HasSuffix(name, "~") &&
			!slices.ContainsFunc(not, ends(name)) && (len(only) == 0 || slices.ContainsFunc(only, ends(name)))
	})
	if len(files) == 0 {
		d.idle("there is no file in it")
		return
	}
	d.carried()
	at, text := d.at, d.text
	for _, f := range files {
		d.at, d.text = at, text
		d.confFile(f)
	}
	d.at, d.text = at, text
}

// setPort is where it listens.
func (d *dnsmasq) setPort(value string) {
	n, err := strconv.ParseUint(value, 10, 16)
	switch {
	case err != nil:
		d.lost("%q is no port", value)
	case n == 0:
		d.idle("DNS is off there already: smartdns listens at port 53")
	default:
		d.carried()
		d.port = uint16(n)
	}
}

func (d *dnsmasq) listenAddress(value string) {
	for a := range strings.SplitSeq(value, ",") {
		if _, err := netip.ParseAddr(strings.TrimSpace(a)); err != nil {
			d.lost("%q is no address", clip(a))
			continue
		}
		d.listen.dns = append(d.listen.dns, d.value(strings.TrimSpace(a)))
	}
}

func (d *dnsmasq) interfaces(value string) {
	for name := range strings.SplitSeq(value, ",") {
		switch name = strings.TrimSpace(name); {
		case name == "lo":
			d.carried()
		case strings.Contains(name, "*"):
			d.lost("interfaces are named one by one in [listen] lan")
		default:
			d.listen.lan = appendNew(d.listen.lan, d.value(name))
			d.changed("its clients are served, and what they send is routed by [decide]; their DNS to other servers comes here, too (redirect = false turns that off)")
		}
	}
}

// resolvFile takes the servers out of a file like resolv.conf.
func (d *dnsmasq) resolvFile(value string) {
	p := d.absolute(value, "")
	data, err := d.read(p)
	if err != nil {
		d.lost("%s: %v: name its servers in [side.upstream]", p, err)
		return
	}
	d.carried()
	n := 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err != nil || a.IsLoopback() {
			continue // it would be ourselves
		}
		if e, ok := d.reader.server(f[1]); ok {
			d.serve("", e)
			n++
		}
	}
	if n > 0 {
		d.changed("its %d servers of now are taken over: what changes in %s later is not followed", n, p)
	}
}

func (d *dnsmasq) hostsFile(value string) {
	p := d.absolute(value, "")
	if slices.ContainsFunc(d.records.hosts, func(e *entry) bool { return e.text == configs.Quote(p) }) {
		d.carried()
		return
	}
	d.records.hosts = append(d.records.hosts, d.value(p))
}

func (d *dnsmasq) hostsDir(value string) {
	files := d.directory(d.absolute(value, ""), func(n string) bool { return n[0] != '.' && !strings.HasSuffix(n, "~") })
	for _, f := range files {
		d.hostsFile(f)
	}
	d.changed("hosts files are named one by one: the %d files of %s that are there now", len(files), path.Clean(value))
}

func (d *dnsmasq) size(v string)   { d.cacheSize(v) }
func (d *dnsmasq) minTTL(v string) { d.ttl("min_ttl", v, 0, mostMinTTL) }
func (d *dnsmasq) maxTTL(v string) { d.ttl("max_ttl", v, 1e9, mostTTL) }

func (d *dnsmasq) stale(v string) {
	if v == "" || v == "0" {
		d.idle("stale answers are given for up to a day by default ([cache] stale)")
		return
	}
	d.ttl("stale", v, 0, mostTTL)
}

// choose returns how a side of several servers asks them.
func (d *dnsmasq) choose(servers []*entry) []*entryOf {
	if len(servers) < 2 {
		return nil
	}
	for _, f := range []struct{ flag, word string }{{"all-servers", "race"}, {"strict-order", "order"}} {
		if at, ok := d.flags[f.flag]; ok {
			e := quoted(f.word)
			e.at, e.from = at, f.flag
			return []*entryOf{{"choose", e}}
		}
	}
	return nil
}
