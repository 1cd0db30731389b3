package nft_test

import (
	"bufio"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// edits are what an admin, or another program, may do to our table.
func edits() map[string]string {
	return map[string]string{
		"flush ruleset":      "flush ruleset",
		"delete table":       "delete table inet smartdns",
		"flush chain":        "flush chain inet smartdns flows",
		"insert a rule":      "insert rule inet smartdns output accept",
		"add a rule":         "add rule inet smartdns postrouting counter",
		"add a chain":        "add chain inet smartdns mine { type filter hook input priority 5; }",
		"flush a static set": "flush set inet smartdns home_4",
		"add to a set":       "add element inet smartdns local_4 { 8.8.8.0/24 }",
		"swap prefixes":      "flush set inet smartdns home_4; add element inet smartdns home_4 { 40.0.0.0/16 }",
		"take an interface":  "delete element inet smartdns lan_ifs { \"lan0\" }",
		"flush the table":    "flush table inet smartdns",
	}
}

func TestForeignEditIsNoticedAndRepaired(t *testing.T) {
	for what, edit := range edits() {
		t.Run(what, func(t *testing.T) {
			inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
				before := listing(t)
				watch, err := table.Watch()
				if err != nil {
					t.Error(err)
					return
				}
				defer watch.Close()
				if watch.Foreign() {
					t.Error("our own Set looks foreign")
				}
				load(t, edit)
				at := time.Now()
				if !watch.Foreign() {
					t.Error("the change was not seen at once")
				}
				if watch.Foreign() {
					t.Error("the change was seen twice")
				}
				select {
				case <-table.Lost():
					t.Logf("told after %v", time.Since(at))
				case <-time.After(10 * time.Second):
					t.Error("nobody was told")
				}
				if steps, err := table.Diff(context.Background(), gateway()); err != nil || len(steps) == 0 {
					t.Errorf("the difference: %v, %v", steps, err)
				}
				steps := set(t, table, gateway())
				if d := cmp.Diff(before, listing(t)); d != "" {
					t.Errorf("repaired by\n%s\n-before +after:\n%s", strings.Join(steps, "\n"), d)
				}
				if steps := set(t, table, gateway()); len(steps) != 0 {
					t.Errorf("and once more: %v", steps)
				}
			})
		})
	}
}

func TestRuleReplacedInPlaceIsNoticed(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		for l := range strings.Lines(nftOut(t, "-a", "list", "chain", "inet", "smartdns", "to_wg0")) {
			if strings.Contains(l, "meta mark set") {
				handle := l[strings.LastIndex(l, " ")+1:]
				nftOut(t, "replace", "rule", "inet", "smartdns", "to_wg0", "handle", strings.TrimSpace(handle), "meta mark set meta mark & 0xc0ffffff | 0x01000000")
			}
		}
		if steps := set(t, table, gateway()); len(steps) != 3 {
			t.Errorf("repaired by %d steps, want a flush and two rules: %v", len(steps), steps)
		}
	})
}

func TestChangesElsewhereAreNobodysBusiness(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		watch, err := table.Watch()
		if err != nil {
			t.Error(err)
			return
		}
		defer watch.Close()
		load(t, "table inet other { set s { type ipv4_addr; elements = { 1.1.1.1 }; }; }\ntable ip smartdns { }")
		if watch.Foreign() {
			t.Error("a table of somebody else is taken for ours")
		}
	})
}

func TestNobodyChangesAnOwnedTable(t *testing.T) {
	for what, edit := range edits() {
		t.Run(what, func(t *testing.T) {
			inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
				if !nft.IsOwned(table) {
					t.Skip("SKIPPED: this kernel has no owner|persist")
				}
				before := listing(t)
				c := exec.Command("nft", "-f", "-")
				c.Stdin = strings.NewReader(edit)
				out, err := c.CombinedOutput()
				if what == "flush ruleset" {
					if err != nil {
						t.Errorf("%v: %s", err, out)
					}
				} else if err == nil || !strings.Contains(string(out), "not permitted") {
					t.Errorf("allowed: %v, %s", err, out)
				}
				if d := cmp.Diff(before, listing(t)); d != "" {
					t.Errorf("-before +after:\n%s", d)
				}
				if steps := set(t, table, gateway()); len(steps) != 0 {
					t.Errorf("something to repair: %v", steps)
				}
			})
		})
	}
}

func TestTableOfAKilledProgramIsAdopted(t *testing.T) {
	netnstest.Require(t, "nft")
	netnstest.Do(t, netnstest.New(t), func() {
		other := exec.Command("/proc/self/exe")
		other.Env = append(os.Environ(), envOwner+"=yes")
		out, err := other.StdoutPipe()
		if err == nil {
			err = other.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
			t.Errorf("the other program: %q, %v", l, err)
		}
		ctx := context.Background()
		table, err := nft.Open(ctx, nft.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		if _, err := table.Set(ctx, gateway()); !errors.Is(err, nft.ErrForeign) {
			t.Errorf("while its owner lives: %v", err)
		}
		if _, err := table.Delete(ctx); !errors.Is(err, nft.ErrForeign) {
			t.Errorf("deleting while its owner lives: %v", err)
		}
		other.Process.Signal(unix.SIGKILL)
		other.Wait()
		if s, err := table.Observe(ctx); err != nil || !s.Exists || s.Sets["wg0_4"] != 1 || s.Sets["home_4"] != 1 {
			t.Errorf("after its death: %v, %v", s, err)
		}
		if steps := set(t, table, gateway()); len(steps) != 1 || !strings.Contains(steps[0], "owner, persist") {
			t.Errorf("adopted by %v", steps)
		}
		if err := nft.Filled(table); err != nil {
			t.Error(err)
		}
		commits := nft.Commits(table)
		until, err := table.Marker().Mark(ctx, 0, to("wg0", time.Hour, foreign4))
		if err != nil || time.Until(until) < 110*time.Minute || nft.Commits(table) != commits {
			t.Errorf("a mark of the dead program: until %v, %v", until, err)
		}
		if c := exec.Command("nft", "delete", "table", "inet", "smartdns"); c.Run() == nil {
			t.Error("the adopted table is not protected")
		}
		if steps, err := table.Delete(ctx); err != nil || len(steps) != 1 {
			t.Errorf("deleting: %v, %v", steps, err)
		}
		if steps, err := table.Delete(ctx); err != nil || len(steps) != 0 {
			t.Errorf("deleting again: %v, %v", steps, err)
		}
		if s := nftOut(t, "list", "ruleset"); s != "" {
			t.Errorf("left behind:\n%s", s)
		}
	})
}

func TestMarksSurviveEveryChangeOfTheTable(t *testing.T) {
	netnstest.Require(t, "nft")
	bigger := gateway()
	bigger.SetSize *= 2
	for what, c := range map[string]struct {
		from, to nft.Mode
		want     nft.Ruleset
	}{
		"another ruleset":         {nft.Owned, nft.Owned, twoTunnels()},
		"another size":            {nft.Owned, nft.Owned, bigger},
		"from shared to owned":    {nft.Shared, nft.Owned, gateway()},
		"from owned to shared":    {nft.Owned, nft.Shared, gateway()},
		"shared, and larger sets": {nft.Shared, nft.Shared, bigger},
	} {
		t.Run(what, func(t *testing.T) {
			netnstest.Do(t, netnstest.New(t), func() {
				ctx := context.Background()
				first, err := nft.Open(ctx, nft.Options{Mode: c.from})
				if err != nil {
					t.Error(err)
					return
				}
				set(t, first, gateway())
				if _, err := first.Marker().Mark(ctx, 0, append(to("wg0", 2*time.Hour, foreign4, foreign6), to(routing.Direct, time.Hour, home4)...)); err != nil {
					t.Error(err)
				}
				first.Close()
				second, err := nft.Open(ctx, nft.Options{Mode: c.to})
				if err != nil {
					t.Error(err)
					return
				}
				defer second.Close()
				set(t, second, c.want)
				wantLeft(t, second, foreign4, "wg0", 2*time.Hour)
				wantLeft(t, second, foreign6, "wg0", 2*time.Hour)
				wantLeft(t, second, home4, routing.Direct, time.Hour)
				if steps := set(t, second, c.want); len(steps) != 0 {
					t.Errorf("a second Set took %v", steps)
				}
			})
		})
	}
}

// A set cannot be made smaller than what it holds: it keeps its size, over a
// start too, until the marks have gone.
func TestMarksOutliveASmallerSize(t *testing.T) {
	netnstest.Require(t)
	small := gateway()
	small.SetSize = 64
	for what, mode := range map[string]nft.Mode{"owned": nft.Owned, "shared, then owned": nft.Shared} {
		t.Run(what, func(t *testing.T) {
			netnstest.Do(t, netnstest.New(t), func() {
				ctx := context.Background()
				first, err := nft.Open(ctx, nft.Options{Mode: mode})
				if err != nil {
					t.Error(err)
					return
				}
				set(t, first, gateway())
				var all []routing.Mark
				for i := range 100 {
					all = append(all, to("wg0", time.Hour, netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}).String())...)
				}
				if _, err := first.Marker().Mark(ctx, 0, all); err != nil {
					t.Error(err)
				}
				set(t, first, small)
				first.Close()
				second, err := nft.Open(ctx, nft.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				defer second.Close()
				set(t, second, small)
				if s, err := second.Observe(ctx); err != nil || s.Sets["wg0_4"] != 100 || s.Sizes["wg0_4"] < 100 || s.Sizes["wg0_6"] != 64 && mode == nft.Shared {
					t.Errorf("%d marks, room for %v, %v", s.Sets["wg0_4"], s.Sizes, err)
				}
				if steps := set(t, second, small); len(steps) != 0 {
					t.Errorf("and once more: %v", steps)
				}
				for _, m := range all[:50] {
					if _, err := second.Marker().Forget(ctx, m.Addr); err != nil {
						t.Error(err)
					}
				}
				set(t, second, small)
				if s, err := second.Observe(ctx); err != nil || s.Sets["wg0_4"] != 50 || s.Sizes["wg0_4"] != 64 {
					t.Errorf("after half of them: %d marks, room for %v, %v", s.Sets["wg0_4"], s.Sizes, err)
				}
				if steps := set(t, second, small); len(steps) != 0 {
					t.Errorf("and once more: %v", steps)
				}
			})
		})
	}
}

func TestMarksOfARemovedTunnelAreGone(t *testing.T) {
	inTable(t, nft.Owned, twoTunnels(), func(table *nft.Table) {
		ctx := context.Background()
		if _, err := table.Marker().Mark(ctx, 0, append(to("office", time.Hour, foreign4), to("wg0", time.Hour, home4)...)); err != nil {
			t.Error(err)
		}
		steps := set(t, table, gateway())
		if !strings.Contains(strings.Join(steps, "\n"), "conntrack -D --mark 0x3000000/0x3f000000") {
			t.Errorf("its flows go on: %v", steps)
		}
		if _, err := table.Marker().Mark(ctx, 0, to("office", time.Hour, foreign4)); err == nil {
			t.Error("marked for a tunnel that is no more")
		}
		if l := table.Ledger().List(); len(l) != 1 || l[0].Path != "wg0" {
			t.Errorf("ledger: %v", l)
		}
	})
}

func TestSetOfABadRulesetChangesNothing(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		before := listing(t)
		for what, change := range map[string]func(*nft.Ruleset){
			"no tunnel \"wg9\"":        func(r *nft.Ruleset) { r.Decide.Default = "wg9" },
			"outside of the field":     func(r *nft.Ruleset) { r.Tunnels[0].Mark = 1 },
			"is that of direct":        func(r *nft.Ruleset) { r.Tunnels[0].Mark = plain },
			"not an interface name":    func(r *nft.Ruleset) { r.Interfaces.LAN = []string{`a"; drop`} },
			"two sets would be called": func(r *nft.Ruleset) { r.Addresses.Lists = []nft.List{{Name: "wg0"}} },
			"cannot be called":         func(r *nft.Ruleset) { r.Tunnels[0].Path = routing.Direct },
			"addresses[9]: no list": func(r *nft.Ruleset) {
				r.Decide.Rules[0] = nft.AddressRule{Match: nft.Match{Kind: nft.MatchList, List: "x"}, Via: "wg0", Text: "addresses[9]"}
			},
			"at most 16 are possible": func(r *nft.Ruleset) { r.Tunnels = make([]nft.Tunnel, 17) },
		} {
			r := gateway()
			change(&r)
			if _, err := table.Set(context.Background(), r); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("want %q, got %v", what, err)
			}
		}
		if d := cmp.Diff(before, listing(t)); d != "" {
			t.Errorf("-before +after:\n%s", d)
		}
	})
}

func TestErrorsSayWhatIsMissing(t *testing.T) {
	if err := nft.ExplainAbsence(unix.EINVAL); !errors.Is(err, nft.ErrUnsupported) {
		t.Error(err)
	}
	if err := nft.ExplainAbsence(unix.EPERM); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Error(err)
	}
	if err := nft.ExplainAbsence(nil); err != nil {
		t.Error(err)
	}
}

// Observed counters and elements are what status prints.
func TestObserveCounts(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, foreign4, home4, foreign6)); err != nil {
			t.Error(err)
		}
		s, err := table.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		for name, n := range map[string]int{"wg0_4": 2, "wg0_6": 1, "direct_4": 0, "home_4": 1, "local_4": 8, "lan_ifs": 1} {
			if got, ok := s.Sets[name]; got != n || !ok {
				t.Errorf("%s: %d elements, want %d", name, got, n)
			}
		}
		if _, ok := s.Counters["new_wg0"]; !ok || !s.Exists || s.Owner == 0 {
			t.Errorf("observed %+v", s)
		}
	})
}
