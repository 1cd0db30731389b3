package daemon

import (
	"testing"
	"time"

	"smartdns/configs"
	"smartdns/routing"
	"smartdns/routing/wg"
)

// A tunnel is out of use as soon as it is down, and in use again after it has
// been up for a while without a break; one that flaps waits longer each time.
func TestComeback(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	var c comeback
	alone, stood := func() bool { return false }, func() bool { return true }
	step := func(after time.Duration, s wg.State, stoodIn func() bool, want bool) {
		t.Helper()
		now = now.Add(after)
		if got := c.in(now, s, stoodIn); got != want {
			t.Fatalf("%s after %s: in use %t, want %t (%+v)", s, after, got, want, c)
		}
	}
	step(0, wg.Connecting, stood, true)
	step(time.Hour, wg.Up, stood, true)
	step(time.Second, wg.Stale, stood, true)
	step(time.Second, wg.Down, stood, false)
	step(time.Minute, wg.Up, stood, false)
	step(9*time.Second, wg.Up, stood, false)
	if left := c.left(now); left != time.Second {
		t.Errorf("%s left, want 1 s", left)
	}
	step(time.Second/2, wg.Stale, stood, false) // a break
	step(time.Second, wg.Up, stood, false)
	step(9*time.Second, wg.Up, stood, false)
	step(time.Second, wg.Up, stood, true)
	if c.left(now) != 0 {
		t.Errorf("%s left of a tunnel in use", c.left(now))
	}
	for _, wait := range []time.Duration{20, 40, 80, 160, 300, 300} {
		wait *= time.Second
		step(time.Minute, wg.Down, stood, false)
		step(time.Second, wg.Up, stood, false)
		step(wait-time.Second, wg.Up, stood, false)
		step(time.Second, wg.Up, stood, true)
	}
	step(calm, wg.Down, stood, false) // it has been good for long
	step(time.Second, wg.Up, stood, false)
	step(firstWait, wg.Up, stood, true)
	step(time.Minute, wg.Down, alone, false)
	step(time.Second, wg.Connecting, stood, false) // made anew: nobody knows yet
	step(time.Second, wg.Up, alone, true)          // nobody else would carry them
}

// Who carries a tunnel's flows follows from who is up, down the chain; while
// none is, the end of the chain says what becomes of them.
func TestChainOfStandIns(t *testing.T) {
	p := compiled(t, "", "0.0.0.0/0, ::/0")
	for _, path := range []routing.Path{"wg1", "wg2"} {
		more := p.Tunnels[0]
		more.Path = path
		p.Tunnels = append(p.Tunnels, more)
	}
	p.Tunnels[0].WhenDown, p.Tunnels[1].WhenDown, p.Tunnels[2].WhenDown = "wg1", "wg2", configs.WhenDownDirect
	l, err := p.wanted(gatewayFacts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		down []routing.Path
		want [3]routing.Path
	}{
		{nil, [3]routing.Path{"wg0", "wg1", "wg2"}},
		{[]routing.Path{"wg0"}, [3]routing.Path{"wg1", "wg1", "wg2"}},
		{[]routing.Path{"wg1"}, [3]routing.Path{"wg0", "wg2", "wg2"}},
		{[]routing.Path{"wg0", "wg1"}, [3]routing.Path{"wg2", "wg2", "wg2"}},
		{[]routing.Path{"wg0", "wg1", "wg2"}, [3]routing.Path{routing.Direct, routing.Direct, routing.Direct}},
	} {
		now := l
		now.links = map[routing.Path]link{}
		for path, n := range l.links {
			n.up = !contains(c.down, path)
			now.links[path] = n
		}
		r := p.ruleset(now)
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			if got := p.via(now, p.Tunnels[i].Path); got != want {
				t.Errorf("%v down: %s is carried by %s, want %s", c.down, p.Tunnels[i].Path, got, want)
			}
			if n := r.Tunnels[i]; !n.Up && n.StandIn != want || n.Up && n.StandIn != "" {
				t.Errorf("%v down: in the table it is %q that stands in for %s", c.down, n.StandIn, n.Path)
			}
		}
	}
	p.Tunnels[2].WhenDown = configs.WhenDownBlock
	for path, n := range l.links {
		n.up = false
		l.links[path] = n
	}
	if by := p.via(l, "wg0"); by != "" {
		t.Errorf("all are down and blocked, and %s carries wg0", by)
	}
	if !p.watchful("wg0") || !p.watchful("wg2") {
		t.Error("a chain of stand-ins is not watched")
	}
}

// Where routes decide, the lines of a tunnel that is down lead to its link,
// where flows are marked for the stand-in; to the stand-in's link where it has
// none; and as the main table says while its flows go direct.
func TestWaysOfATunnelThatIsDown(t *testing.T) {
	p := compiled(t, "[routing]\nmode = \"routes\"\n", "0.0.0.0/0, ::/0")
	other := p.Tunnels[0]
	other.Path = "wg1"
	p.Tunnels = append(p.Tunnels, other)
	l, err := p.wanted(gatewayFacts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		when  configs.WhenDown
		index int
		want  routing.Path
	}{
		{"wg1", 7, "wg0"}, {"wg1", 0, "wg1"}, {configs.WhenDownDirect, 7, ""}, {configs.WhenDownBlock, 7, "wg0"}, {configs.WhenDownBlock, 0, "wg0"},
	} {
		p.Tunnels[0].WhenDown = c.when
		n := l.links["wg0"]
		n.up, n.index = false, c.index
		l.links["wg0"] = n
		for _, w := range p.ways(l) {
			if w.Dst == routing.V4.All() && w.Path != c.want {
				t.Errorf("when_down = %q, link %d: the default way is %q, want %q", c.when, c.index, w.Path, c.want)
			}
		}
	}
}
