package draft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"smartdns/configs"
)

// mosdns reads the YAML of mosdns v5: plugins, of which sequences are programs
// that handle a query. What a sequence does with names, clients and types
// becomes lines; what it does with answers is known where it is the usual test
// for addresses at home.
type mosdns struct {
	*reader
	plugins map[string]*plugin
	order   []*plugin
	asked   []*forwarder // in the order of use
	rules   []*rule      // ask names a forwarder by its tag
	filter  rule
	ecs     string
	state   walk
	depth   int
}

// walk is what has happened to names in no list so far.
type walk struct {
	first, second string // forwarders
	checked       bool   // the first one's answer is judged by its addresses
}

type plugin struct {
	tag, kind string
	args      *yaml.Node
	at        place
	used      bool
}

// forwarder is a plugin that asks servers, or the servers in a line.
type forwarder struct {
	tag  string
	side side
	role string // domestic or foreign, where auto gives it one
}

func readMosdns(r *reader, inputs []input) error {
	m := &mosdns{reader: r, plugins: map[string]*plugin{}}
	for _, in := range inputs {
		if err := m.file(in.name, in.data); err != nil {
			return err
		}
	}
	m.run()
	m.finish()
	return nil
}

func (m *mosdns) file(name string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return fmt.Errorf("%s: no configuration of mosdns: it has no plugins", name)
	}
	root := doc.Content[0]
	for k, v := range pairs(root) {
		if slices.Contains([]string{"plugin", "servers", "data_providers"}, k.Value) {
			return fmt.Errorf("%s:%d: %s is of mosdns v4, and files of v5 are read: turn it into one first", name, k.Line, k.Value)
		}
		m.line(place{name, k.Line}, k.Value)
		switch k.Value {
		case "plugins":
			m.carried()
			for _, p := range v.Content {
				m.plugin(name, p)
			}
		case "include":
			for _, f := range v.Content {
				m.line(place{name, f.Line}, f.Value)
				m.include(f.Value)
			}
		case "log":
			m.idle("smartdns logs to its standard error, which systemd keeps: journalctl -u smartdns")
		case "api":
			m.lost("smartdns status and its --json say what is going on")
		default:
			m.unsettled()
		}
	}
	return nil
}

func (m *mosdns) include(value string) {
	p := m.absolute(value, "")
	data, err := m.read(p)
	if err == nil && m.depth < 8 && !slices.Contains(m.sources, p) {
		m.carried()
		m.sources = append(m.sources, p)
		m.depth++
		err = m.file(p, data)
		m.depth--
	}
	if err != nil {
		m.lost("%v: give it with --from once it can be read", err)
	}
}

func (m *mosdns) plugin(file string, n *yaml.Node) {
	p := &plugin{tag: text(n, "tag"), kind: text(n, "type"), args: child(n, "args"), at: place{file, n.Line}}
	m.line(p.at, fmt.Sprintf("tag: %s, type: %s", p.tag, p.kind))
	if p.kind == "" {
		m.lost("is no plugin: it has no type")
		return
	}
	if m.plugins[p.tag] == nil || p.tag == "" {
		m.order = append(m.order, p)
	}
	m.plugins[p.tag] = p
	m.carried()
}

// at makes a plugin the line that is being read.
func (m *mosdns) in(p *plugin) {
	p.used = true
	m.line(p.at, fmt.Sprintf("tag: %s, type: %s", p.tag, p.kind))
}

// run follows the servers into what they execute.
func (m *mosdns) run() {
	var entries []string
	for _, p := range m.order {
		m.in(p)
		switch p.kind {
		case "udp_server", "tcp_server":
			to := &m.listen.dns
			usual := "53"
			if text(p.args, "cert") != "" {
				to, usual = &m.listen.dot, "853"
				m.certificate(p)
			}
			m.listenOn(to, text(p.args, "listen"), usual)
			entries = append(entries, text(p.args, "entry"))
		case "http_server":
			m.listenOn(&m.listen.doh, text(p.args, "listen"), "443")
			m.certificate(p)
			if e := child(p.args, "entries"); e != nil {
				for _, x := range e.Content {
					entries = append(entries, firstOf(text(x, "exec"), text(x, "entry")))
					if at := text(x, "path"); at != "" && at != "/dns-query" {
						m.changed("DNS over HTTPS is at /dns-query, not %s", clip(at))
					}
				}
			}
		case "quic_server":
			m.lost("clients are not served over QUIC: [listen] dot and doh are there")
			entries = append(entries, text(p.args, "entry"))
		default:
			p.used = false
		}
	}
	entries = slices.DeleteFunc(entries, func(s string) bool { return s == "" })
	if len(entries) == 0 {
		for _, p := range slices.Backward(m.order) {
			if p.kind == "sequence" {
				entries = []string{p.tag}
				break
			}
		}
	}
	for i, e := range entries {
		if slices.Contains(entries[:i], e) {
			continue
		}
		if p := m.plugins[strings.TrimPrefix(e, "$")]; p != nil && i == 0 {
			m.call(p, "", where{})
		} else if p != nil {
			m.in(p)
			m.lost("is a second way to handle queries: a listener can have a side of its own, and lines hold for some clients")
		}
	}
	for _, p := range m.order {
		if !p.used && !strings.HasSuffix(p.kind, "_set") {
			m.line(p.at, fmt.Sprintf("tag: %s, type: %s", p.tag, p.kind))
			m.idle("nothing uses it")
		}
	}
}

func (m *mosdns) certificate(p *plugin) {
	cert, key := text(p.args, "cert"), text(p.args, "key")
	if cert == "" || key == "" {
		return
	}
	m.listen.cert, m.listen.key = m.value(m.absolute(cert, "")), m.value(m.absolute(key, ""))
}

// listenOn takes "0.0.0.0:53" or ":53".
func (m *mosdns) listenOn(to *[]*entry, at, usual string) {
	host, port := at, usual
	if i := strings.LastIndexByte(at, ':'); i >= 0 && !strings.HasSuffix(at, "]") {
		host, port = at[:i], at[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	hosts := []string{host}
	if host == "" || host == "[::]" {
		hosts = []string{"0.0.0.0", "::"}
	}
	for _, h := range hosts {
		text, e := m.address(h, uint16(n))
		if err != nil || e != nil || n == 0 {
			m.lost("%q is no address to listen on", clip(at))
			return
		}
		*to = appendNew(*to, m.value(text))
	}
}

// forward returns the forwarder of a plugin, or of the servers in a line.
func (m *mosdns) forward(p *plugin, quick string) string {
	tag := quick
	if p != nil {
		tag = p.tag
	}
	if slices.ContainsFunc(m.asked, func(f *forwarder) bool { return f.tag == tag }) {
		m.carried()
		return tag
	}
	f := &forwarder{tag: tag}
	if p == nil {
		for _, s := range strings.Fields(quick) {
			m.upstream(f, s, nil)
		}
	} else {
		at, was := m.at, m.text
		m.in(p)
		if up := child(p.args, "upstreams"); up != nil {
			for _, u := range up.Content {
				m.line(place{p.at.file, u.Line}, "addr: "+text(u, "addr"))
				m.upstream(f, text(u, "addr"), u)
			}
		}
		m.forwardOptions(f, p)
		m.at, m.text = at, was
	}
	if m.carried(); len(f.side.servers) == 0 {
		m.lost("%s has no server that could be asked", clip(tag))
		return ""
	}
	m.asked = append(m.asked, f)
	return tag
}

func (m *mosdns) forwardOptions(f *forwarder, p *plugin) {
	for k, v := range pairs(p.args) {
		m.line(place{p.at.file, k.Line}, k.Value+": "+v.Value)
		switch k.Value {
		case "upstreams":
		case "concurrent":
			if n, _ := strconv.Atoi(v.Value); n > 1 && len(f.side.servers) > 1 {
				f.side.more = append(f.side.more, &entryOf{"choose", m.value(string(configs.ChooseRace))})
			}
			m.carried()
		default:
			m.serverOption(f, k.Value, v.Value)
		}
	}
}

// serverOption takes what upstreams and forward plugins have in common.
func (m *mosdns) serverOption(f *forwarder, key, value string) {
	switch key {
	case "bootstrap":
		if e, ok := m.reader.server(m.serverText(value, false)); ok {
			f.side.bootstrap = appendNew(f.side.bootstrap, e)
		}
	case "socks5":
		if !slices.ContainsFunc(f.side.more, func(e *entryOf) bool { return e.key == "socks5" }) {
			f.side.more = append(f.side.more, &entryOf{"socks5", m.value(value)})
		}
	case "bind_to_device", "so_mark":
		m.changed("the server is asked on the path of its side: via = \"wg0\" for one behind a tunnel")
	case "insecure_skip_verify":
		if value == "true" {
			m.changed("certificates are always verified: for a key of its own give the server a pin")
		}
	case "tag", "addr", "dial_addr", "enable_http3", "max_conns", "enable_pipeline", "idle_timeout", "bootstrap_version":
	default:
		m.lost("is not understood")
	}
}

// upstream adds a server to a forwarder.
func (m *mosdns) upstream(f *forwarder, addr string, n *yaml.Node) {
	s := m.serverText(addr, text(n, "enable_http3") == "true")
	if err := configs.CheckServer(s); err != nil {
		m.lost("%s is no server here: %v", clip(addr), err)
		return
	}
	e := m.value(s)
	if dial := text(n, "dial_addr"); dial != "" && !serverAddr(s).IsValid() {
		a, err := netip.ParseAddr(strings.Trim(dial, "[]"))
		if p, e := netip.ParseAddrPort(dial); e == nil {
			a, err = p.Addr(), nil
		}
		if err != nil {
			m.lost("dial_addr %q is no address", clip(dial))
		} else {
			e = m.raw("{ server = " + e.text + ", addresses = [" + configs.Quote(a.String()) + "] }")
		}
	}
	f.side.servers = appendNew(f.side.servers, e)
	for k, v := range pairs(n) {
		m.serverOption(f, k.Value, v.Value)
	}
}

// serverText is a server as we write it.
func (m *mosdns) serverText(addr string, http3 bool) string {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		scheme, rest = "udp", addr
	}
	scheme = strings.TrimSuffix(scheme, "+pipeline")
	switch scheme {
	case "doq":
		scheme = "quic"
	case "udpme":
		m.changed("forged answers are known without asking twice: udpme is plain UDP here")
		scheme = "udp"
	case "https":
		if http3 {
			scheme = "h3"
		}
	}
	if scheme == "https" || scheme == "h3" {
		return scheme + "://" + rest
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") && (strings.HasPrefix(rest, "[") || strings.Count(rest, ":") == 1) {
		host, port = rest[:i], rest[i+1:]
	}
	return server(scheme, host, port, "")
}

// finish names the sides and makes them what lines ask.
func (m *mosdns) finish() {
	names := map[string]string{}
	for _, f := range m.asked {
		wanted := f.role
		if wanted == "" {
			if wanted = purpose(f.side.servers); wanted != configs.SideDomestic && wanted != configs.SideForeign ||
				slices.ContainsFunc(m.asked, func(o *forwarder) bool { return o.role == wanted }) {
				wanted = asWord(strings.TrimPrefix(strings.TrimPrefix(f.tag, "forward_"), "forward"), "servers")
			}
		}
		if m.ecs != "" {
			f.side.more = append(f.side.more, &entryOf{"ecs", quoted(m.ecs)})
		}
		s := m.newSide(wanted, f.side)
		if f.role != configs.SideForeign {
			m.helper(s)
		}
		names[f.tag] = s.name
	}
	for _, x := range m.rules {
		if name, ok := names[x.ask]; ok {
			x.ask = name
		}
	}
	m.writer.rules = m.rules
	if m.state.first != "" && m.state.second == "" && m.last.ask == configs.AskAuto && len(m.last.answer) == 0 {
		i := slices.IndexFunc(m.sides, func(s *side) bool { return s.name == names[m.state.first] })
		m.at, m.text = m.sides[i].at, m.sides[i].from
		m.decideRest(m.sides[i])
	}
	m.last.filtered(m.filter)
}

// role gives a forwarder the part that auto has for it.
func (m *mosdns) role(tag, name string) {
	for _, f := range m.asked {
		if f.tag == tag && f.role == "" && !slices.ContainsFunc(m.asked, func(o *forwarder) bool { return o.role == name }) {
			f.role = name
		}
	}
}

// domains returns the entries of a domain_set.
func (m *mosdns) domains(p *plugin) []string {
	at, was := m.at, m.text
	defer func() { m.at, m.text = at, was }()
	m.in(p)
	if m.depth++; m.depth > 20 {
		m.lost("sets name each other in a circle")
		return nil
	}
	defer func() { m.depth-- }()
	var all []string
	for k, v := range pairs(p.args) {
		for _, x := range scalars(v) {
			m.line(place{p.at.file, x.Line}, x.Value)
			switch k.Value {
			case "exps":
				if e, ok := m.match(x.Value); ok {
					m.carried()
					all = append(all, e)
				}
			case "files":
				all = append(all, "list:"+m.list(m.absolute(x.Value, ""), ""))
			case "sets":
				if s := m.plugins[strings.TrimPrefix(x.Value, "$")]; s != nil && s.kind == "domain_set" {
					m.carried()
					all = append(all, m.domains(s)...)
				} else {
					m.lost("there is no such set")
				}
			default:
				m.lost("is not understood")
			}
		}
	}
	return all
}
