package daemon

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"smartdns/routing"
)

// walked is a packet on its way through our rules, as nft lists them, and the
// kernel's routing. It is a TCP segment from the LAN or from this host itself.
type walked struct {
	dst      netip.Addr
	iif, oif string // iif "" is this host's own
	state    string // new or established, for conntrack
	ct, mark uint32
}

// walker reads what Ruleset.String says.
type walker struct {
	t      testing.TB
	chains map[string][][]string
	sets   map[string][]string
}

func newWalker(t testing.TB, text string) *walker {
	w := &walker{t, map[string][][]string{}, map[string][]string{}}
	kind, name := "", ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0][0] == '#' || words[0] == "type" || words[0] == "table":
		case words[0] == "set" || words[0] == "counter" && words[len(words)-1] == "{" || words[0] == "chain":
			kind, name = words[0], words[1]
		case words[0] == "}":
			kind = ""
		case kind == "chain":
			w.chains[name] = append(w.chains[name], words)
		case kind == "set":
			for _, e := range words {
				w.sets[name] = append(w.sets[name], strings.Trim(e, `{},"=`))
			}
		}
	}
	return w
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 0, 32)
	return uint32(n)
}

// holds reports whether a set, or what stands in its place, has an address.
func (w *walker) holds(what string, a netip.Addr) bool {
	all := []string{what}
	if set, ok := strings.CutPrefix(what, "@"); ok {
		all = w.sets[set]
	}
	return slices.ContainsFunc(all, func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(a)
		}
		one, err := netip.ParseAddr(s)
		return err == nil && one == a
	})
}

// named is the same for an interface.
func (w *walker) named(what, name string) bool {
	if set, ok := strings.CutPrefix(what, "@"); ok {
		return slices.Contains(w.sets[set], name)
	}
	return strings.Trim(what, `"`) == name
}

// chain walks p through a chain: "drop" where it ends.
func (w *walker) chain(name string, p *walked) string {
	for _, words := range w.chains[name] {
		verdict, to := w.rule(words, p)
		switch verdict {
		case "drop", "accept":
			return verdict
		case "return":
			return ""
		case "goto":
			return w.chain(to, p)
		case "jump":
			if v := w.chain(to, p); v != "" {
				return v
			}
		}
	}
	return ""
}

// rule applies one rule: what it says, or "" when p does not match. It knows the
// words of our rules, and fails the test at any other.
func (w *walker) rule(words []string, p *walked) (verdict, to string) {
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		word := words[0]
		words = words[1:]
		return word
	}
	take := func(n int) []string { all := words[:n]; words = words[n:]; return all }
	value := func(same func(string) bool) bool {
		v := next()
		if v == "!=" {
			return !same(next())
		}
		return same(v)
	}
	mark := func(m *uint32) bool {
		switch next() {
		case "set":
			keep := number(take(4)[3]) // ct mark & KEEP | VALUE
			*m &= keep
			if len(words) > 0 && words[0] == "|" {
				*m |= number(take(2)[1])
			}
			return true
		default:
			t := take(3) // MASK == VALUE
			return *m&number(t[0]) == number(t[2])
		}
	}
	for len(words) > 0 {
		ok := true
		switch word := next(); word {
		case "iifname":
			ok = value(func(s string) bool { return w.named(s, p.iif) })
		case "oifname":
			ok = value(func(s string) bool { return w.named(s, p.oif) })
		case "ct":
			switch key := next(); key {
			case "mark":
				ok = mark(&p.ct)
			case "state":
				ok = slices.Contains(strings.Split(next(), ","), p.state)
			case "direction":
				ok = next() == "original"
			default: // status, reply, original: of translations that are as they should be
				return "", ""
			}
		case "meta":
			switch next() {
			case "mark":
				ok = mark(&p.mark)
			case "l4proto":
				ok = next() == "tcp"
			default:
				ok = next() == "ipv4"
			}
		case "ip":
			ok = next() == "daddr" && w.holds(next(), p.dst)
		case "ip6", "udp":
			return "", ""
		case "fib":
			return "", "" // it is neither ours nor a broadcast
		case "tcp":
			if next() != "flags" {
				return "", ""
			}
			rest := strings.Join(words, " ")
			switch syn := p.state == "new"; {
			case strings.HasPrefix(rest, "& (syn | rst) == syn"):
				ok = syn
			case strings.HasPrefix(rest, "& (fin | syn | rst | ack) != syn"):
				ok = !syn
			default:
				w.t.Fatalf("flags: %s", rest)
			}
			for next() != "syn" || len(words) > 0 && words[0] == "|" { // to the end of the comparison
			}
			if len(words) > 0 && words[0] == "tcp" { // option maxseg size set
				return "", ""
			}
		case "counter":
			take(2)
		case "comment":
			return "", ""
		case "notrack", "masquerade":
			return "", ""
		case "return", "drop", "accept":
			return word, ""
		case "reject":
			return "drop", ""
		case "goto", "jump":
			return word, next()
		default:
			w.t.Fatalf("the word %q of a rule is not known here", word)
		}
		if !ok {
			return "", ""
		}
	}
	return "", ""
}

// route is where the kernel sends an IPv4 packet: an interface, or "".
func route(s routing.State, there func(dev string) bool, p *walked) string {
	rules := slices.Clone(s.Rules)
	rules = append(rules, routing.Rule{Family: routing.V4, Pref: 32766, Table: 254})
	slices.SortStableFunc(rules, func(a, b routing.Rule) int { return cmp.Compare(a.Pref, b.Pref) })
	from := uint32(0)
	for _, r := range rules {
		if r.Family != routing.V4 || r.Pref < from || r.IIF != "" && r.IIF != p.iif || r.Nop {
			continue
		}
		if r.Mask != 0 && (p.mark&r.Mask == r.Mark) == r.Not {
			continue
		}
		switch {
		case r.Unreachable:
			return ""
		case r.Goto != 0:
			from = r.Goto
			continue
		case r.Table == 254:
			return "eth0"
		}
		best, found := routing.Route{}, false
		for _, o := range s.Routes {
			if o.Table != r.Table || !o.Dst.Contains(p.dst) || o.Dev != "" && !there(o.Dev) {
				continue
			}
			if !found || o.Dst.Bits() > best.Dst.Bits() || o.Dst.Bits() == best.Dst.Bits() && o.Metric < best.Metric {
				best, found = o, true
			}
		}
		if found && best.Type != routing.Throw {
			return best.Dev // "" where it is unreachable
		}
	}
	return ""
}
