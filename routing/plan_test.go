package routing_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"smartdns/routing"
	"smartdns/routing/routingtest"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func link(index int, name, kind string, addrs ...string) routing.Iface {
	return routing.Iface{
		Link:     routing.Link{Index: index, Name: name, MTU: 1500, Up: name != "wg0" && name != "wg1"},
		Kind:     kind,
		Loopback: name == "lo",
		Addrs:    prefixes(addrs...),
		AcceptRA: 1,
	}
}

func stockRules() []routing.ForeignRule {
	var rules []routing.ForeignRule
	for _, f := range []routing.Family{routing.V4, routing.V6} {
		rules = append(rules,
			routing.ForeignRule{Rule: routing.Rule{Family: f, Pref: 0, Table: routing.TableLocal}, Protocol: 2},
			routing.ForeignRule{Rule: routing.Rule{Family: f, Pref: 32766, Table: routing.TableMain}, Protocol: 2},
			routing.ForeignRule{Rule: routing.Rule{Family: f, Pref: 32767, Table: routing.TableDefault}, Protocol: 2})
	}
	return rules
}

// host is a dual-stack host with a tunnel's link.
func host() routing.Facts {
	return routing.Facts{
		Links: []routing.Iface{
			link(1, "lo", "device", "127.0.0.1/8", "::1/128"),
			link(2, "eth0", "device", "192.0.2.2/24", "2001:db8::2/64"),
			link(3, "wg0", "wireguard"),
		},
		Defaults: []routing.Default{{Family: routing.V4, Dev: "eth0"}, {Family: routing.V6, Dev: "eth0"}},
		Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")},
		Rules:    stockRules(),
		IPv6:     true,
	}
}

func wg0() routing.Tunnel {
	return routing.Tunnel{
		Path: "wg0", Index: 3, MTU: 1420,
		Addrs:      prefixes("10.9.0.2/32", "fd09::2/128"),
		AllowedIPs: prefixes("0.0.0.0/0", "::/0"),
	}
}

func oneTunnel() routing.Input {
	return routing.Input{Field: routing.DefaultField, Tunnels: []routing.Tunnel{wg0()}, Default: "wg0", Marking: true}
}

type planCase struct {
	name, about string
	in          routing.Input
	facts       routing.Facts
}

func planCases() []planCase {
	locks := oneTunnel()
	locks.Marking = false
	locks.Tunnels[0].Index = 0

	gateway := oneTunnel()
	gateway.LAN = []string{"br-lan"}
	router := host()
	router.Links = append(router.Links, link(4, "br-lan", "bridge", "192.168.8.1/24"))

	strict := host()
	strict.Links = slices.Clone(router.Links)
	for i := range strict.Links {
		strict.Links[i].Strict = true
	}

	noV6Default := host()
	noV6Default.Defaults = noV6Default.Defaults[:1]

	noV6 := host()
	noV6.IPv6 = false
	noV6.Defaults = noV6.Defaults[:1]

	two := oneTunnel()
	two.Tunnels = append(two.Tunnels, routing.Tunnel{
		Path: "wg1", Number: 1, Index: 5, MTU: 1380,
		Addrs:      prefixes("10.44.0.7/24"),
		AllowedIPs: prefixes("10.44.0.0/16", "198.18.0.0/15", "10.44.0.0/16"),
	})
	twoLinks := host()
	twoLinks.Links = append(twoLinks.Links, link(5, "wg1", "tuntap"))

	v4Only := oneTunnel()
	v4Only.Tunnels[0].Addrs = prefixes("10.9.0.2/32")
	v4Only.Tunnels[0].AllowedIPs = prefixes("0.0.0.0/0")

	routes := oneTunnel()
	routes.LAN = []string{"br-lan"}
	routes.Ways = []routing.Way{
		{Dst: netip.MustParsePrefix("192.168.8.0/24")}, {Dst: netip.MustParsePrefix("fc00::/7")},
		{Dst: netip.MustParsePrefix("10.9.0.2/32"), Path: "wg0"},
		{Dst: netip.MustParsePrefix("39.156.0.0/16"), Path: routing.Direct}, {Dst: netip.MustParsePrefix("2408::/16"), Path: routing.Direct},
		{Dst: routing.V4.All(), Path: "wg0"}, {Dst: routing.V6.All(), Path: "wg0"},
	}
	uplinks := router
	uplinks.Defaults = []routing.Default{
		{Family: routing.V4, Dev: "ppp0", Metric: 50},
		{Family: routing.V4, Dev: "eth0", Via: netip.MustParseAddr("192.0.2.1"), Metric: 100},
		{Family: routing.V6, Dev: "eth0", Via: netip.MustParseAddr("fe80::1"), Metric: 1024},
	}
	v4Uplink := router
	v4Uplink.Defaults = []routing.Default{{Family: routing.V4, Dev: "eth0", Via: netip.MustParseAddr("192.0.2.1")}}
	waiting := routes
	waiting.Tunnels = []routing.Tunnel{wg0()}
	waiting.Tunnels[0].Index = 0

	discreet := oneTunnel()
	discreet.Discreet = true
	locked := routing.Input{
		Field: routing.DefaultField, Tunnels: []routing.Tunnel{wg0()}, Locked: true,
		Near: prefixes("192.168.0.0/16", "169.254.0.0/16", "fe80::/10"),
	}
	locked.Tunnels[0].Index = 0

	return []planCase{
		{"nothing", "no tunnel is configured", routing.Input{Field: routing.DefaultField, Marking: true}, host()},
		{"locks", "before the nft table and the link: only what locks", locks, host()},
		{"host", "a host with one tunnel", oneTunnel(), host()},
		{"gateway", "a gateway for br-lan with one tunnel", gateway, router},
		{"no-v6-default", "main has no v6 default route", oneTunnel(), noV6Default},
		{"no-v6", "the kernel has no IPv6", oneTunnel(), noV6},
		{"v4-tunnel", "the tunnel has no v6: what is marked for it cannot leave", v4Only, host()},
		{"two-tunnels", "two tunnels, one of them for a few prefixes", two, twoLinks},
		{"strict-filters", "a gateway whose reverse path filters are strict", gateway, strict},
		{"routes", "home by routes; the preferred uplink has no gateway", routes, uplinks},
		{"routes-v4-uplink", "home by routes; the uplink has no IPv6", routes, v4Uplink},
		{"routes-no-link", "home by routes; the tunnel has no link yet", waiting, v4Uplink},
		{"discreet", "a kill switch: nobody on the uplink asks which addresses the tunnel has", discreet, host()},
		{"lockdown", "nobody decides: a way to the LAN alone", locked, host()},
	}
}

func describe(c planCase) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n#\n# facts\n", c.about)
	for _, l := range c.facts.Links {
		strict := ""
		if l.Strict {
			strict = "strict "
		}
		fmt.Fprintf(&b, "#   link %d %s %s mtu %d up=%t accept_ra=%d %s%s\n", l.Index, l.Name, l.Kind, l.MTU, l.Up, l.AcceptRA, strict, words(l.Addrs))
	}
	for _, d := range c.facts.Defaults {
		fmt.Fprintf(&b, "#   %s default dev %s\n", d.Family, d.Dev)
	}
	fmt.Fprintf(&b, "#   IPv6 %t\n# input\n", c.facts.IPv6)
	for _, t := range c.in.Tunnels {
		fmt.Fprintf(&b, "#   tunnel %d %s link %d mtu %d addresses %s allowed %s\n", t.Number, t.Path, t.Index, t.MTU, words(t.Addrs), words(t.AllowedIPs))
	}
	fmt.Fprintf(&b, "#   lan %s, marking %t\n", c.in.LAN, c.in.Marking)
	return b.String()
}

func words(p []netip.Prefix) string { return strings.Trim(fmt.Sprint(p), "[]") }

func lines(steps []routing.Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

func TestPlanGoldens(t *testing.T) {
	for _, c := range planCases() {
		t.Run(c.name, func(t *testing.T) {
			k := routingtest.New(c.facts)
			for key, v := range map[string]string{
				"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0",
				"net/ipv4/conf/wg0/rp_filter": "0", "net/ipv4/conf/wg1/rp_filter": "0",
				"net/ipv6/conf/wg0/addr_gen_mode": "0", "net/ipv6/conf/wg1/addr_gen_mode": "0",
				"net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/br-lan/accept_ra": "1",
				"net/ipv4/conf/eth0/rp_filter": "1", "net/ipv4/conf/br-lan/rp_filter": "1",
			} {
				k.SetHost(key, v)
			}
			want := routing.Plan(c.in, c.facts)
			up := diffAndApply(t, k, c.in, want)
			if again := routing.Diff(want, want); len(again) != 0 {
				t.Errorf("Diff(want, want) = %s, want nothing", lines(again))
			}
			if again := diffAndApply(t, k, c.in, want); len(again) != 0 {
				t.Errorf("a second run has steps: %s", lines(again))
			}
			down := diffAndApply(t, k, c.in, routing.State{})
			if again := diffAndApply(t, k, c.in, routing.State{}); len(again) != 0 {
				t.Errorf("a second teardown has steps: %s", lines(again))
			}
			golden(t, c.name, describe(c)+"\n# up\n"+lines(up)+"\n# down\n"+lines(down))
		})
	}
}

func diffAndApply(t *testing.T, k *routingtest.Kernel, in routing.Input, want routing.State) []routing.Step {
	t.Helper()
	var devices []int
	for _, tun := range in.Tunnels {
		devices = append(devices, tun.Index)
	}
	have, _, err := k.Observe(context.Background(), devices)
	if err != nil {
		t.Fatal(err)
	}
	steps := routing.Diff(want, have)
	if err := k.Apply(context.Background(), steps); err != nil {
		t.Fatal(err)
	}
	return steps
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("..", "testdata", "plan", "routing-"+name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// At every point of bringing up and taking down, a tunnel's table is looked up
// only while both locks behind it are there.
func TestEveryPrefixOfTheStepsIsLocked(t *testing.T) {
	for _, c := range planCases() {
		k := routingtest.New(c.facts)
		want := routing.Plan(c.in, c.facts)
		for _, w := range []routing.State{want, {}} {
			var devices []int
			for _, tun := range c.in.Tunnels {
				devices = append(devices, tun.Index)
			}
			have, _, _ := k.Observe(t.Context(), devices)
			for _, s := range routing.Diff(w, have) {
				if err := k.Apply(t.Context(), []routing.Step{s}); err != nil {
					t.Fatal(err)
				}
				now, _, _ := k.Observe(t.Context(), devices)
				if open := unlocked(now); open != "" {
					t.Errorf("%s: after %q: %s", c.name, s, open)
				}
			}
		}
	}
}

func unlocked(s routing.State) string {
	for _, r := range s.Rules {
		if r.Table < routing.FirstTable || r.Not || r.IIF != "" {
			continue
		}
		lock := r
		lock.Table, lock.Pref, lock.Unreachable = 0, r.Pref+1, true
		if !slices.Contains(s.Rules, lock) {
			return fmt.Sprintf("%q without %q", r, lock)
		}
	}
	for _, r := range s.Routes {
		lock := routing.Route{Table: r.Table, Dst: r.Family().All(), Type: routing.Unreachable, Metric: routing.MetricLock, Protocol: routing.Protocol}
		if !slices.Contains(s.Routes, lock) {
			return fmt.Sprintf("%q without %q", r, lock)
		}
	}
	return ""
}

// Whatever is there, the steps turn it into what is wanted.
func TestDiffReachesWhatIsWanted(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	cases := planCases()
	random := func() (routing.State, routing.Facts) {
		c := cases[rnd.IntN(len(cases))]
		s := routing.Plan(c.in, c.facts)
		keep := func() bool { return rnd.IntN(3) > 0 }
		s.Rules = slices.DeleteFunc(s.Rules, func(routing.Rule) bool { return !keep() })
		s.Routes = slices.DeleteFunc(s.Routes, func(routing.Route) bool { return !keep() })
		s.Addrs = slices.DeleteFunc(s.Addrs, func(routing.Addr) bool { return !keep() })
		s.Sysctls = slices.DeleteFunc(s.Sysctls, func(routing.Sysctl) bool { return !keep() })
		if keep() {
			s.Routes = append(s.Routes, routing.Route{Table: routing.FirstTable, Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0", Protocol: 3})
			s.Routes = append(s.Routes, routing.Route{Table: routing.FirstTable, Dst: netip.MustParsePrefix("1.2.3.0/24"), Type: "throw", Protocol: 3})
		}
		return s, c.facts
	}
	for range 500 {
		have, _ := random()
		c := cases[rnd.IntN(len(cases))]
		want := routing.Plan(c.in, c.facts)
		k := routingtest.New(c.facts)
		k.Edit(func(s *routing.State, _ *routing.Facts) { *s = have })
		diffAndApply(t, k, c.in, want)
		if again := diffAndApply(t, k, c.in, want); len(again) != 0 {
			t.Fatalf("%s: steps are left: %s", c.name, lines(again))
		}
		got, _, _ := k.Observe(t.Context(), nil)
		if d := cmp.Diff(want.Rules, got.Rules, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Fatalf("%s: rules (-want +got):\n%s", c.name, d)
		}
	}
}

func TestRenamedLinkGetsItsNameBack(t *testing.T) {
	facts := host()
	k := routingtest.New(facts)
	in := oneTunnel()
	diffAndApply(t, k, in, routing.Plan(in, facts))
	k.Edit(func(s *routing.State, f *routing.Facts) {
		f.Links[2].Name = "tun9"
		for i := range s.Routes {
			if s.Routes[i].Dev == "wg0" {
				s.Routes[i].Dev = "tun9"
			}
		}
		for i := range s.Addrs {
			s.Addrs[i].Dev = "tun9"
		}
	})
	facts.Links[2].Name = "tun9"
	steps := diffAndApply(t, k, in, routing.Plan(in, facts))
	if got, want := lines(steps), "ip link set dev tun9 name wg0\n"; got != want {
		t.Errorf("steps:\n%s\nwant:\n%s", got, want)
	}
}

func TestAnotherLinkOfTheSameNameIsLeftAlone(t *testing.T) {
	facts := host()
	facts.Links[2].Index = 77
	s := routing.Plan(oneTunnel(), facts)
	if len(s.Links) != 0 || len(s.Addrs) != 0 {
		t.Errorf("the plan wants %v and %v on a link that nobody configured", s.Links, s.Addrs)
	}
	if len(s.Rules) != 4 || len(s.Routes) != 2 {
		t.Errorf("the plan has %d rules and %d routes, want the 4 and 2 of the locks", len(s.Rules), len(s.Routes))
	}
}

func TestNumber(t *testing.T) {
	var many []routing.Path
	for i := range routing.MaxTunnels + 1 {
		many = append(many, routing.Path(fmt.Sprint("wg", i)))
	}
	all := map[routing.Path]int{}
	for i := range routing.MaxTunnels {
		all[routing.Path(fmt.Sprint("old", i))] = i
	}
	for _, c := range []struct {
		name  string
		paths []routing.Path
		shown map[routing.Path]int
		want  map[routing.Path]int
	}{
		{"new ones in the order of the file", []routing.Path{"b", "a"}, nil, map[routing.Path]int{"b": 0, "a": 1}},
		{"kept when the file is reordered", []routing.Path{"b", "a"}, map[routing.Path]int{"a": 0, "b": 1}, map[routing.Path]int{"a": 0, "b": 1}},
		{"a gap is filled", []routing.Path{"a", "b", "c"}, map[routing.Path]int{"a": 0, "c": 2}, map[routing.Path]int{"a": 0, "b": 1, "c": 2}},
		{"not that of a tunnel that goes away", []routing.Path{"b"}, map[routing.Path]int{"a": 0}, map[routing.Path]int{"b": 1}},
		{"but that one when there is no other", []routing.Path{"n"}, all, map[routing.Path]int{"n": 0}},
		{"too many", many, nil, nil},
	} {
		got, err := routing.Number(c.paths, c.shown)
		if (err != nil) != (c.want == nil) || !maps.Equal(got, c.want) {
			t.Errorf("%s: Number(%v, %v) = %v, %v, want %v", c.name, c.paths, c.shown, got, err, c.want)
		}
	}
}

func TestNumbersAreReadFromRuleTableAndDevice(t *testing.T) {
	c := planCases()[7]
	s := routing.Plan(c.in, c.facts)
	if got, want := s.Numbers(), (map[routing.Path]int{"wg0": 0, "wg1": 1}); !maps.Equal(got, want) {
		t.Errorf("Numbers() = %v, want %v", got, want)
	}
}

func TestConflicts(t *testing.T) {
	foreign := func(r routing.Rule) routing.ForeignRule { return routing.ForeignRule{Rule: r, Protocol: 3} }
	wgQuick := foreign(routing.Rule{Family: routing.V4, Pref: 32765, Not: true, Mark: 0xca6c, Mask: 1<<32 - 1, Table: 51820})
	wgQuick.Wide = true
	first := wgQuick
	first.Pref = 5090
	from := foreign(routing.Rule{Family: routing.V4, Pref: 1000, Table: 200})
	from.Also, from.Narrow = "from 10.0.0.5/32", true
	late := foreign(routing.Rule{Family: routing.V4, Pref: 5270, Table: 52})
	for _, c := range []struct {
		name string
		rule routing.ForeignRule
		want []routing.ConditionKind
	}{
		{"main is looked up first", foreign(routing.Rule{Family: routing.V4, Pref: 1, Table: routing.TableMain}), []routing.ConditionKind{routing.ForeignRuleFirst}},
		{"main is looked up late", foreign(routing.Rule{Family: routing.V4, Pref: 32000, Table: routing.TableMain}), nil},
		{"wg-quick behind us takes what is direct", wgQuick, []routing.ConditionKind{routing.ForeignRuleFirst}},
		{"wg-quick before us takes all", first, []routing.ConditionKind{routing.ForeignRuleFirst}},
		{"tailscale's mark before us", foreign(routing.Rule{Family: routing.V4, Pref: 5000, Mark: 0x80000, Mask: 0xff0000, Table: routing.TableMain}), nil},
		{"tailscale's table of a few hosts", late, nil},
		{"a source before us", from, []routing.ConditionKind{routing.ForeignRuleFirst}},
		{"a mark in our field", foreign(routing.Rule{Family: routing.V4, Pref: 9000, Mark: 0x4000000, Mask: 0xff000000, Table: 9}), []routing.ConditionKind{routing.MarkFieldTaken}},
	} {
		f := host()
		f.Rules = append(f.Rules, c.rule)
		var got []routing.ConditionKind
		for _, cond := range routing.Conflicts(oneTunnel(), f) {
			got = append(got, cond.Kind)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: conditions %v, want %v", c.name, got, c.want)
		}
	}
	f := host()
	f.Rules = slices.DeleteFunc(f.Rules, func(r routing.ForeignRule) bool { return r.Family == routing.V4 && r.Table == routing.TableMain })
	want := []routing.Condition{{Kind: routing.RuleMissing, Text: "no v4 rule looks up the table main; put it back: ip rule add pref 32766 lookup main"}}
	if d := cmp.Diff(want, routing.Conflicts(oneTunnel(), f)); d != "" {
		t.Errorf("without the rule for main (-want +got):\n%s", d)
	}
	if got := routing.Conflicts(routing.Input{}, f); got != nil {
		t.Errorf("without a tunnel: conditions %v, want none", got)
	}
}

// Where larger packets do not arrive the routes into the tunnel say so, those of
// IPv6 as far as IPv6 can; the link keeps its MTU.
func TestRoutesSayWhatFits(t *testing.T) {
	in, f := oneTunnel(), host()
	for _, tt := range []struct{ fits, v4, v6 int }{{0, 0, 0}, {1216, 1216, 1280}, {1400, 1400, 1400}, {1420, 0, 0}} {
		in.Tunnels[0].Fits = tt.fits
		for _, r := range routing.Plan(in, f).Routes {
			want := map[routing.Family]int{routing.V4: tt.v4, routing.V6: tt.v6}[r.Family()]
			if r.Dev == "" {
				want = 0
			}
			if r.MTU != want {
				t.Errorf("%d fit: %s; want mtu %d", tt.fits, r, want)
			}
		}
	}
	in.Tunnels[0].Fits = 0
	have := routing.Plan(in, f)
	in.Tunnels[0].Fits = 1216
	for _, s := range routing.Diff(routing.Plan(in, f), have) {
		if _, ok := s.(routing.ReplaceRoute); !ok || !strings.Contains(s.String(), " mtu 12") {
			t.Errorf("a lower MTU takes %s", s)
		}
	}
}

// A parameter that may not be written from here is said with the command for
// somebody who may, and is nothing that keeps failing.
func TestStuckParameterSaysItsFix(t *testing.T) {
	in := routing.Input{Tunnels: []routing.Tunnel{{Path: "wg0"}}}
	f := routing.Facts{Stuck: []routing.Sysctl{{Key: routing.KeyForward4, Value: "1", Was: "0"}}}
	cs := routing.Conflicts(in, f)
	i := slices.IndexFunc(cs, func(c routing.Condition) bool { return c.Kind == routing.SysctlStuck })
	if i < 0 || cs[i].Fix != "sysctl -w net.ipv4.ip_forward=1" || !strings.Contains(cs[i].Text, "net.ipv4.ip_forward is 0") {
		t.Errorf("%+v", cs)
	}
}
