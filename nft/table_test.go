package nft_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// open opens the table in the calling thread's namespace, until t ends.
func open(t testing.TB, mode nft.Mode) *nft.Table {
	t.Helper()
	table, err := nft.Open(t.Context(), nft.Options{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// set brings the table to r and returns how many steps that took.
func set(t testing.TB, table *nft.Table, r nft.Ruleset) []string {
	t.Helper()
	steps, err := table.Set(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

var volatile = regexp.MustCompile(`(?m)^\s*flags (owner|persist|unknown).*\n|packets \d+ bytes \d+| expires \w+|\t# .*\n`)

// listing is what nft lists, without what changes by itself, sets sorted.
func listing(t testing.TB) string {
	t.Helper()
	text := volatile.ReplaceAllString(nftOut(t, "list", "table", "inet", "smartdns"), "")
	head, body, _ := strings.Cut(text, "\n")
	blocks := strings.Split(body, "\n\t}\n")
	for i := range blocks {
		blocks[i] = strings.TrimLeft(blocks[i], "\n")
	}
	slices.Sort(blocks)
	return head + "\n" + strings.Join(blocks, "\n\t}\n")
}

func TestKernelHoldsWhatTheTextSays(t *testing.T) {
	netnstest.Require(t, "nft")
	for name, r := range rulesets() {
		t.Run(name, func(t *testing.T) {
			var byText, byNetlink string
			netnstest.Do(t, netnstest.New(t), func() {
				load(t, r.Full())
				byText = listing(t)
			})
			netnstest.Do(t, netnstest.New(t), func() {
				set(t, open(t, nft.Shared), r)
				byNetlink = listing(t)
			})
			if d := cmp.Diff(byText, byNetlink); d != "" {
				t.Errorf("-nft -f +netlink:\n%s", d)
			}
		})
	}
}

func TestSecondSetChangesNothing(t *testing.T) {
	netnstest.Require(t)
	for name, r := range rulesets() {
		for mode, what := range map[nft.Mode]string{nft.Owned: "owned", nft.Shared: "shared"} {
			t.Run(name+" "+what, func(t *testing.T) {
				netnstest.Do(t, netnstest.New(t), func() {
					table := open(t, mode)
					if steps := set(t, table, r); len(steps) == 0 {
						t.Error("the first Set did nothing")
					}
					if steps := set(t, table, r); len(steps) != 0 {
						t.Errorf("the second Set took %d steps:\n%s", len(steps), strings.Join(steps, "\n"))
					}
				})
			})
		}
	}
}

func TestSetGoesFromEveryRulesetToEveryOther(t *testing.T) {
	netnstest.Require(t, "nft")
	for from, r := range rulesets() {
		for to, s := range rulesets() {
			t.Run(from+" to "+to, func(t *testing.T) {
				var fresh, changed string
				netnstest.Do(t, netnstest.New(t), func() {
					set(t, open(t, nft.Owned), s)
					fresh = listing(t)
				})
				netnstest.Do(t, netnstest.New(t), func() {
					table := open(t, nft.Owned)
					set(t, table, r)
					set(t, table, s)
					changed = listing(t)
					if steps := set(t, table, s); len(steps) != 0 {
						t.Errorf("one more Set took %d steps:\n%s", len(steps), strings.Join(steps, "\n"))
					}
				})
				if d := cmp.Diff(fresh, changed); d != "" {
					t.Errorf("-made at once +changed:\n%s", d)
				}
			})
		}
	}
}
