package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"smartdns/configs"
	"smartdns/routing"
	"smartdns/routing/wg"
)

// model is the daemon's loop over two tunnels and a kernel that is not there: a
// value, so that every sequence of events goes on from a copy.
type model struct {
	state  [2]wg.State // what the monitors say
	back   [2]comeback
	alive  bool // the daemon runs
	refuse struct{ nft, routes bool }
	kernel kernelModel
	now    time.Duration
}

// kernelModel is what we left in the kernel, and what others took.
type kernelModel struct {
	table, rules     kernelWay // what was set last
	noTable, noRules bool
	link             [2]bool // there are devices
}

// kernelWay is what the wanted kernel state depends on here.
type kernelWay struct{ up, link [2]bool }

// modelled is what one configuration makes of it.
type modelled struct {
	t       *testing.T
	parts   *Parts
	facts   live
	next    map[routing.Path]routing.Path
	tables  map[kernelWay]*walker
	rules   map[kernelWay]routing.State
	seen    map[modelKey]int
	checked map[checkKey]bool
	reached map[wg.State]bool
	steps   int
}

var modelEpoch = time.Unix(1_790_000_000, 0)

var modelPaths = [2]routing.Path{"wg0", "wg1"}

// modelEvents are what can happen; each is followed by the loop's turn, unless
// it is the daemon's end.
var modelEvents = []struct {
	name string
	do   func(*model)
}{
	{"wg0 connecting", func(m *model) { m.state[0] = wg.Connecting }},
	{"wg0 up", func(m *model) { m.state[0] = wg.Up }},
	{"wg0 stale", func(m *model) { m.state[0] = wg.Stale }},
	{"wg0 down", func(m *model) { m.state[0] = wg.Down }},
	{"wg1 up", func(m *model) { m.state[1] = wg.Up }},
	{"wg1 down", func(m *model) { m.state[1] = wg.Down }},
	{"wg0's link goes or comes", func(m *model) { m.kernel.link[0] = !m.kernel.link[0] }},
	{"12 s pass", func(m *model) { m.now += 12 * time.Second }},
	{"nftables refuses, or takes, what we say", func(m *model) { m.refuse.nft = !m.refuse.nft }},
	{"routing refuses, or takes, what we say", func(m *model) { m.refuse.routes = !m.refuse.routes }},
	{"ip rule flush", func(m *model) { m.kernel.noRules = true }},
	{"nft flush ruleset", func(m *model) { m.kernel.noTable = true }},
	{"the daemon is killed", func(m *model) { m.alive, m.kernel.link = false, [2]bool{} }},
	{"the daemon starts", func(m *model) {
		if !m.alive {
			m.alive, m.state, m.back = true, [2]wg.State{wg.Connecting, wg.Connecting}, [2]comeback{}
		}
	}},
}

// converge is the loop's turn.
func (c *modelled) converge(m *model) {
	if !m.alive {
		return
	}
	if m.state[0] == wg.Connecting && m.state[1] == wg.Connecting && !m.kernel.link[1] { // just started
		if m.refuse.nft || m.refuse.routes {
			m.alive = false // what a crash left closed stays closed
			return
		}
		m.kernel.link = [2]bool{true, true}
	}
	in := inUse(modelEpoch.Add(m.now), c.next, func(p routing.Path) (*comeback, wg.State) {
		i := slices.Index(modelPaths[:], p)
		return &m.back[i], m.state[i]
	})
	way := kernelWay{[2]bool{in("wg0"), in("wg1")}, m.kernel.link}
	if !m.refuse.nft {
		m.kernel.table, m.kernel.noTable = way, false
	}
	if !m.refuse.routes {
		m.kernel.rules, m.kernel.noRules = way, false
	}
	fails := map[string]failure{}
	if m.refuse.nft {
		fails["nft"] = failure{severity: severityError}
	}
	if m.refuse.routes {
		fails["routes"] = failure{severity: severityError}
	}
	c.reached[m.state[0].Carried(installed(fails), routing.StandIn("wg0", c.next, in) != "")] = true
}

// live is a way as the compiler takes it.
func (c *modelled) live(way kernelWay) live {
	l := c.facts
	l.links = map[routing.Path]link{}
	for i, p := range modelPaths {
		n := c.facts.links[p]
		n.up = way.up[i]
		if !way.link[i] {
			n.index = 0
		}
		l.links[p] = n
	}
	return l
}

// modelKey is a model by its own clock.
type modelKey struct {
	model
	up, used [2]time.Duration
}

// checkKey is what a check depends on.
type checkKey struct {
	kernel  kernelModel
	settled bool
}

// leaves walks a packet, and returns the interface by which it leaves, "" for
// none.
func (c *modelled) leaves(m *model, p walked) string {
	w := &walker{t: c.t}
	if way := m.kernel.table; !m.kernel.noTable {
		if c.tables[way] == nil {
			c.tables[way] = newWalker(c.t, c.parts.ruleset(c.live(way)).Full())
		}
		w = c.tables[way]
	}
	var state routing.State
	if way := m.kernel.rules; !m.kernel.noRules {
		if _, ok := c.rules[way]; !ok {
			l := c.live(way)
			c.rules[way] = routing.Plan(c.parts.input(l), l.facts)
		}
		state = c.rules[way]
	}
	there := func(dev string) bool {
		i := slices.Index(modelPaths[:], routing.Path(dev))
		return i < 0 || m.kernel.link[i]
	}
	before, after := []string{"early", "flows", "steer"}, []string{"forward", "postrouting"}
	if p.iif == "" {
		before, after = []string{"early_output", "output"}, []string{"postrouting"}
		p.oif = route(state, there, &p)
	}
	for _, chain := range before {
		if w.chain(chain, &p) == "drop" {
			return ""
		}
	}
	if p.oif = route(state, there, &p); p.oif == "" {
		return ""
	}
	for _, chain := range after {
		if w.chain(chain, &p) == "drop" {
			return ""
		}
	}
	return p.oif
}

// check holds every kind of packet against the oracle: what belongs into a
// tunnel leaves by it, by a chosen stand-in, directly where that was chosen, or
// not at all; and by exactly the way that we say where nothing is in the way.
func (c *modelled) check(m *model, trace []int, settled bool) {
	if key := (checkKey{m.kernel, settled}); c.checked[key] {
		return
	} else {
		c.checked[key] = true
	}
	field := c.facts.marks.field
	for i, class := range modelPaths {
		to := map[routing.Path]netip.Addr{"wg0": netip.MustParseAddr("93.184.216.34"), "wg1": netip.MustParseAddr("198.51.100.7")}[class]
		chosen := map[string]bool{"": true}
		for at, n := class, 0; at != "" && n < 4; at, n = c.next[at], n+1 {
			chosen[map[routing.Path]string{routing.Direct: "eth0"}[at]+strings.TrimPrefix(string(at), "direct")] = true
		}
		for _, iif := range []string{"br-lan", ""} {
			if m.kernel.noTable && (iif == "" || m.kernel.noRules) {
				continue // of a shared table: the README counts these frames
			}
			for _, p := range []walked{
				{state: "new"}, {state: "established", ct: field.Tunnel(i)}, {state: "established", ct: field.Stood(i)},
			} {
				p.dst, p.iif = to, iif
				out := c.leaves(m, p)
				allowed := chosen[out]
				if p.ct != 0 {
					allowed = allowed && out != "eth0"
				}
				if m.kernel.noTable {
					allowed = out != "eth0" // the third lock knows one tunnel
				}
				if !allowed {
					c.fail(trace, "%s packet for %s (%q, ct mark %#x) leaves by %q; settled %t, %+v", p.state, class, iif, p.ct, out, settled, *m)
				}
				if settled && p.state == "new" {
					if want := c.wants(m, class); out != want {
						c.fail(trace, "a new flow of %s (%q) leaves by %q, want %q; %+v", class, iif, out, want, *m)
					}
				}
			}
		}
	}
}

// wants is the interface of who carries a class by what the table was told.
func (c *modelled) wants(m *model, class routing.Path) string {
	by := routing.StandIn(class, c.next, func(p routing.Path) bool { return m.kernel.table.up[slices.Index(modelPaths[:], p)] })
	switch {
	case by == routing.Direct:
		return "eth0"
	case by != "" && !m.kernel.link[slices.Index(modelPaths[:], by)]:
		return ""
	}
	return string(by)
}

func (c *modelled) fail(trace []int, format string, args ...any) {
	c.t.Helper()
	var names []string
	for _, e := range trace {
		names = append(names, modelEvents[e].name)
	}
	c.t.Fatalf("after %s:\n%s", strings.Join(names, ", "), fmt.Sprintf(format, args...))
}

// go on with every event, to a depth. A model that was seen with as much depth
// left behaves as it did then.
func (c *modelled) explore(m model, trace []int, depth int) {
	if depth == 0 {
		return
	}
	for i, e := range modelEvents {
		next, trace := m, append(trace, i)
		e.do(&next)
		c.steps++
		c.check(&next, trace, false)
		c.converge(&next)
		c.check(&next, trace, next.alive && !next.refuse.nft && !next.refuse.routes)
		key := keyOf(next)
		if c.seen[key] >= depth {
			continue
		}
		c.seen[key] = depth
		c.explore(next, trace, depth-1)
	}
}

func keyOf(m model) modelKey {
	k := modelKey{model: m}
	for i, b := range m.back {
		if !b.up.IsZero() {
			k.up[i] = 1 + modelEpoch.Add(m.now).Sub(b.up)
		}
		if !b.used.IsZero() {
			k.used[i] = 1 + modelEpoch.Add(m.now).Sub(b.used)
		}
		k.back[i].up, k.back[i].used = time.Time{}, time.Time{}
	}
	k.now = 0
	return k
}

// K-04: no sequence of six of these events, in any order, lets a packet of a
// tunnel's leave by another way than was chosen; our rules, as they are listed,
// and our plan of the routing are walked for every state on the way. Every state
// that status shows is reached.
func TestNoSequenceOfEventsLetsTunnelTrafficOut(t *testing.T) {
	reached := map[wg.State]bool{}
	for _, when := range [][2]configs.WhenDown{
		{configs.WhenDownBlock, configs.WhenDownBlock}, {"wg1", configs.WhenDownBlock},
		{"wg1", configs.WhenDownDirect}, {configs.WhenDownDirect, configs.WhenDownBlock},
	} {
		p := compiled(t, gateway+"[decide]\naddresses = [{match = \"198.51.100.0/24\", via = \"direct\"}, {match = [\"private\", \"home\"], via = \"direct\"}, {match = \"*\", via = \"wg0\"}]\n", "0.0.0.0/0")
		other := p.Tunnels[0]
		other.Path = "wg1"
		p.Tunnels = append(p.Tunnels, other)
		p.Tunnels[0].WhenDown, p.Tunnels[1].WhenDown = when[0], when[1]
		p.Sets.Decide.Rules[0].Via = "wg1"
		p.Sets.Home = prefixes("39.156.0.0/16")
		facts := gatewayFacts()
		l, err := p.wanted(facts, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &modelled{
			t: t, parts: p, facts: l, next: p.standIns(), tables: map[kernelWay]*walker{}, rules: map[kernelWay]routing.State{},
			seen: map[modelKey]int{}, checked: map[checkKey]bool{}, reached: reached,
		}
		m := model{alive: true, state: [2]wg.State{wg.Connecting, wg.Connecting}}
		c.converge(&m)
		c.check(&m, nil, true)
		c.explore(m, nil, 6)
		t.Logf("when down: %s, %s: %d steps to %d states", when[0], when[1], c.steps, len(c.seen))
	}
	for _, s := range []wg.State{wg.Connecting, wg.Up, wg.Stale, wg.Down, wg.Blocked, wg.Insecure} {
		if !reached[s] {
			t.Errorf("the state %s is never reached, only %v", s, slices.Sorted(maps.Keys(reached)))
		}
	}
}
