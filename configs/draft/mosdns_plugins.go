package draft

import (
	"net/netip"
	"strings"
)

// cacheOf takes a cache plugin.
func (m *mosdns) cacheOf(p *plugin) {
	for k, v := range pairs(p.args) {
		m.line(place{p.at.file, k.Line}, k.Value+": "+v.Value)
		switch k.Value {
		case "size":
			m.cacheSize(v.Value)
		case "lazy_cache_ttl":
			if v.Value != "0" {
				m.ttl("stale", v.Value, 0, mostTTL)
			}
		case "dump_file", "dump_interval":
			m.idle("the cache is kept over a restart ([cache] save)")
		default:
			m.lost("is not understood")
		}
	}
}

// ecsOf takes an ecs_handler plugin.
func (m *mosdns) ecsOf(p *plugin) {
	for k, v := range pairs(p.args) {
		m.line(place{p.at.file, k.Line}, k.Value+": "+v.Value)
		switch {
		case k.Value == "preset" && v.Value != "":
			m.word("ecs", v.Value, where{})
		case (k.Value == "forward" || k.Value == "send") && v.Value == "true":
			m.carried()
			if m.ecs == "" {
				m.ecs = "client"
			}
		default:
			m.idle("the client's network is its /24 or /56")
		}
	}
}

// hostsOf takes a hosts plugin: names, then their addresses; a name alone is
// "full:".
func (m *mosdns) hostsOf(p *plugin, w where) {
	if !w.always() {
		m.changed("its names are there for everybody")
	}
	take := func(at place, line string) {
		m.line(at, line)
		all := strings.Fields(line)
		if len(all) < 2 {
			m.lost("is written NAME ADDRESS...")
			return
		}
		var addrs []string
		for _, f := range all[1:] {
			a, err := netip.ParseAddr(f)
			if err != nil || a.Zone() != "" {
				m.lost("%q is no address", clip(f))
				return
			}
			addrs = append(addrs, a.Unmap().String())
		}
		kind, name, ok := strings.Cut(all[0], ":")
		if !ok {
			kind, name = "full", all[0]
		}
		if kind == "full" {
			for _, a := range addrs {
				m.record(name, addressType(a), a)
			}
			return
		}
		if e, ok := m.match(all[0]); ok {
			m.decided(rule{match: []string{e}, answer: addrs})
		}
	}
	for k, v := range pairs(p.args) {
		for _, x := range scalars(v) {
			switch k.Value {
			case "entries":
				take(place{p.at.file, x.Line}, x.Value)
			case "files":
				m.line(place{p.at.file, x.Line}, x.Value)
				m.linesOf(m.absolute(x.Value, ""), func(text string) { take(m.at, text) })
			}
		}
	}
}

// linesOf takes the lines of a file that a plugin names.
func (m *mosdns) linesOf(file string, take func(text string)) {
	data, err := m.read(file)
	if err != nil {
		m.unreadable(file, err, "give it with --from once it is there")
		return
	}
	m.changed("its lines of now are taken over: what changes in it later is not followed")
	m.sources = append(m.sources, file)
	m.lines(file, data, take)
}

// redirect takes a redirect plugin: NAME TARGET.
func (m *mosdns) redirect(p *plugin) {
	for k, v := range pairs(p.args) {
		for _, x := range scalars(v) {
			m.line(place{p.at.file, x.Line}, x.Value)
			switch k.Value {
			case "rules":
				m.redirection(x.Value)
			case "files":
				m.linesOf(m.absolute(x.Value, ""), m.redirection)
			default:
				m.lost("is not understood")
			}
		}
	}
}

func (m *mosdns) redirection(text string) {
	all := strings.Fields(text)
	if len(all) != 2 {
		m.lost("is written NAME TARGET")
		return
	}
	if !strings.Contains(all[0], ":") {
		all[0] = "full:" + all[0]
	}
	from, ok := m.match(all[0])
	if !ok {
		return
	}
	if to, ok := m.match("full:" + all[1]); ok {
		m.decided(rule{match: []string{from}, answer: []string{"cname:" + strings.TrimPrefix(to, "full:")}})
	}
}

// prefixes makes sources of who is at home of an ip_set's files.
func (m *mosdns) prefixes(p *plugin) {
	at, was := m.at, m.text
	defer func() { m.at, m.text = at, was }()
	for k, v := range pairs(p.args) {
		for _, x := range scalars(v) {
			m.line(place{p.at.file, x.Line}, x.Value)
			switch k.Value {
			case "files":
				m.homePrefixes(m.absolute(x.Value, ""))
			default:
				m.lost("prefixes at home are those of a file: write them into one and name that in [geo] sources")
			}
		}
	}
}
