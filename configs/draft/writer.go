package draft

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"smartdns/configs"
)

// writer collects what a file will say, in its words, and lays it out.
type writer struct {
	options Options
	listen  listen
	sides   []*side
	lists   []*dataList
	rules   []*rule // before the last one
	last    rule    // matches everything
	records records
	cache   []*entryOf
	poison  []*entry // lists of [poison] bogus
	private []*entry // names of private_ok
	dns64   *entry
	auto    string // "": the default
	geo     []*entry
	source  string // what the head says it is from
}

type listen struct {
	dns, dot, doh, lan, clients []*entry
	cert, key                   *entry
}

// side is a group of servers. What it does beside asking them is in more.
type side struct {
	name      string
	comment   string
	servers   []*entry
	bootstrap []*entry
	more      []*entryOf
	at        place
	from      string
}

type dataList struct {
	name, file, region string
	format             string // "": by its content
	comment            string
	missing            bool // the file cannot be read
	at                 place
	from               string
}

// entryOf is a key and its value.
type entryOf struct {
	key string
	*entry
}

// rule is a line of names.
type rule struct {
	match   []string
	ask     string   // a side or auto
	answer  []string // a word, or addresses
	via     string
	aaaa    string
	https   string
	clients []string
	comment []string
	at      place
	from    string
	off     bool // only a comment
}

type records struct{ lines, hosts []*entry }

func newWriter(o Options) *writer {
	w := &writer{options: o, last: rule{match: []string{"*"}, ask: configs.AskAuto}}
	if len(o.Domestic) > 0 {
		var servers []*entry
		for _, s := range o.Domestic {
			servers = append(servers, quoted(s))
		}
		w.newSide(configs.SideDomestic, side{servers: servers, comment: "Who is asked for names at home."})
	}
	return w
}

// page lays out all that was collected.
func (w *writer) page() page {
	p := page{head: w.head()}
	w.listenTable(&p)
	w.tunnelTables(&p)
	w.sideTables(&p)
	w.listTables(&p)
	w.decideTable(&p)
	t := p.table("records", "Names with records of your own. These come before the lines of [decide].")
	t.list("lines", w.records.lines)
	t.list("hosts", w.records.hosts)
	if w.dns64 != nil {
		p.table("dns64", "IPv6 addresses for names that have none, behind the prefix of a NAT64.").set("prefix", w.dns64)
	}
	sources := w.geo
	if w.options.HomeFile != "" {
		sources = append([]*entry{quoted("list:" + w.homeList())}, sources...)
	}
	if len(sources) > 0 {
		p.table("geo", "Who knows which country an address is in. The first that knows it wins.").
			list("sources", append(slices.Clip(sources), quoted(configs.GeoEmbedded)))
	}
	p.table("poison").list("bogus", w.poison, `Lists of addresses that stand for "no such name".`)
	t = p.table("cache")
	for _, e := range w.cache {
		t.set(e.key, e.entry)
	}
	return p
}

func (w *writer) head() []string {
	name := w.options.Path
	if name == "" {
		name = FileName
	}
	first := name + ", written by smartdns init"
	if w.source != "" {
		first += " from " + w.source
	}
	check := "smartdns check"
	if w.options.Path != "/etc/smartdns/smartdns.toml" && w.options.Path != "" {
		check += " " + path.Base(w.options.Path)
	}
	width := max(len(check), 15)
	return []string{
		first, "",
		fmt.Sprintf("  %-*s   what is wrong with it, and where", width, check),
		fmt.Sprintf("  %-*s   every key with its default", width, "smartdns config"),
		fmt.Sprintf("  %-*s   what it would do to this host", width, "smartdns plan"),
	}
}

func (w *writer) listenTable(p *page) {
	t := p.table("listen")
	dns := w.listen.dns
	for _, a := range w.options.Listen {
		dns = appendNew(dns, quoted(a))
	}
	t.list("dns", dns, "Where DNS is served, over UDP and TCP.")
	t.list("dot", w.listen.dot, "And over TLS.")
	t.list("doh", w.listen.doh, "And over HTTPS.")
	if w.listen.cert != nil && w.listen.key != nil {
		t.set("cert", w.listen.cert)
		t.set("key", w.listen.key)
	}
	lan := w.listen.lan
	for _, i := range w.options.LAN {
		lan = appendNew(lan, quoted(i))
	}
	t.list("lan", lan, "Interfaces whose clients are served and routed. What they send to port 53 of",
		"anybody comes to us; redirect = false leaves it alone.")
	t.list("clients", w.listen.clients, "Who may ask besides this host and the LAN.")
	if w.options.System {
		t.set("system", word("true"), "This host asks us; on stop, whom it asked before.")
	}
}

// appendNew appends e unless its text is there.
func appendNew(all []*entry, e *entry) []*entry {
	if slices.ContainsFunc(all, func(x *entry) bool { return x.text == e.text }) {
		return all
	}
	return append(all, e)
}

// tunnels returns the interface names of the wg-quick files.
func (o Options) tunnels() []string {
	var all []string
	for _, f := range o.Tunnels {
		all = append(all, strings.TrimSuffix(path.Base(f), ".conf"))
	}
	return all
}

func (w *writer) tunnelTables(p *page) {
	for i, name := range w.options.tunnels() {
		comment := []string{"The tunnel: private addresses and those at home leave directly, all others", "through it, or not at all while it is down."}
		if i > 0 {
			comment = []string{`Another one: name it in via = "` + name + `".`}
		}
		t := p.table("tunnel."+configs.QuoteKey(name), comment...)
		t.asked = true
		t.set("config", quoted(w.options.Tunnels[i]))
	}
}

func (w *writer) sideTables(p *page) {
	for _, s := range w.sides {
		var comment []string
		if s.comment != "" {
			comment = []string{s.comment}
		}
		t := p.table("side."+configs.QuoteKey(s.name), comment...)
		t.at, t.text = s.at, s.from
		t.list("servers", s.servers)
		t.list("bootstrap", s.bootstrap)
		for _, e := range s.more {
			t.set(e.key, e.entry)
		}
	}
}

// homeList names the list of the prefixes at home.
func (w *writer) homeList() string { return "home-" + strings.ToLower(w.options.Home) }

func (w *writer) listTables(p *page) {
	lists := w.lists
	if w.options.HomeFile != "" {
		lists = append(slices.Clip(lists), &dataList{name: w.homeList(), file: w.options.HomeFile, region: strings.ToUpper(w.options.Home), comment: "Prefixes at home."})
	}
	for _, l := range lists {
		var comment []string
		if l.comment != "" {
			comment = []string{l.comment}
		}
		t := p.table("list."+configs.QuoteKey(l.name), comment...)
		t.at, t.text, t.off = l.at, l.from, l.missing
		t.asked = l.file == w.options.HomeFile
		t.set("file", &entry{text: configs.Quote(l.file), at: l.at, from: l.from})
		if l.format != "" {
			t.set("format", &entry{text: configs.Quote(l.format), at: l.at, from: l.from})
		}
		if l.region != "" && !strings.HasSuffix(l.file, ".mmdb") {
			t.set("region", quoted(l.region))
		}
	}
}

func (w *writer) decideTable(p *page) {
	t := p.table("decide")
	if home := w.options.Home; home != "" && !strings.EqualFold(home, "CN") {
		t.set("home", quoted(strings.ToUpper(home)), "The country that is home.")
	}
	if w.auto != "" {
		t.set("auto", quoted(w.auto), `How ask = "auto" decides: by asking both sides, and taking the domestic answer`, "if all of it is at home.")
	}
	t.list("private_ok", w.private, "Names, with all below them, whose answers may be private addresses.")
	abroad := w.options.HomeFile != ""
	if len(w.rules) == 0 && w.last.plain() && !abroad {
		return // the default lines are better: they know the list that is part of the program
	}
	rules := append(slices.Clip(w.rules), &w.last)
	width := 0
	for _, r := range rules {
		if m := r.matchText(); len(m) <= 40 {
			width = max(width, len(m))
		}
	}
	var entries []*entry
	for i, r := range rules {
		entries = append(entries, &entry{text: r.toml(width), comment: r.comment, at: r.at, from: r.from, off: r.off, last: i == len(rules)-1})
	}
	t.lines("names", entries, "Whom to ask about a name. The first match wins.")
}

// plain reports whether the last rule is what it is without the file.
func (r *rule) plain() bool {
	return r.ask == configs.AskAuto && len(r.answer) == 0 && r.aaaa == "" && r.https == ""
}

func (r *rule) matchText() string { return inline(r.match, len("  { match = ")) }

func (r *rule) toml(width int) string {
	m := r.matchText() + ","
	if !strings.Contains(m, "\n") {
		m = fmt.Sprintf("%-*s", width+1, m)
	}
	var says []string
	add := func(key, value string) {
		if value != "" {
			says = append(says, key+" = "+configs.Quote(value))
		}
	}
	add("ask", r.ask)
	if len(r.answer) > 0 {
		says = append(says, "answer = "+inline(r.answer, 60))
	}
	add("via", r.via)
	add("aaaa", r.aaaa)
	add("https", r.https)
	if len(r.clients) > 0 {
		all := make([]string, len(r.clients))
		for i, c := range r.clients {
			all[i] = configs.Quote(c)
		}
		says = append(says, "clients = ["+strings.Join(all, ", ")+"]")
	}
	return "{ match = " + m + " " + strings.Join(says, ", ") + " }"
}
