package daemon

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// example compiles one of the shipped examples, with a provider's file.
func example(t *testing.T, name, mode string) *Parts {
	t.Helper()
	const shipped = "/etc/wireguard/wg0.conf"
	text, err := os.ReadFile(filepath.Join("../configs/examples", name))
	if err != nil {
		t.Fatal(err)
	}
	wg := filepath.Join(t.TempDir(), "wg0.conf")
	if err := os.WriteFile(wg, []byte("[Interface]\nPrivateKey = "+key+"\nAddress = 10.9.0.2/32, fd09::2/128\nDNS = 10.9.0.1\n"+
		"[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nEndpoint = 45.76.1.2:51820\nAllowedIPs = 0.0.0.0/0, ::/0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), shipped) {
		t.Fatalf("%s does not name %s", name, shipped)
	}
	if mode != "" {
		text = append(text, "\n[routing]\nmode = \""+mode+"\"\n"...)
	}
	c, err := configs.Parse(strings.NewReader(strings.ReplaceAll(string(text), `"`+shipped+`"`, `"`+wg+`"`)), name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Tunnels {
		p.Tunnels[i].Config = shipped
	}
	return p
}

// The shipped examples' plans are files that an admin can read; what a plan
// asks for, it asks for once: a second Diff is empty, of the routes in memory
// and of the table in a kernel.
func TestPlansOfTheExamples(t *testing.T) {
	for _, c := range []struct {
		name, mode string
		forwards   opened
	}{
		{"gateway", "", opened{true, true}}, {"host", "", opened{}},
		{"gateway", "all", opened{true, true}}, {"gateway", "routes", opened{true, true}}, {"host", "routes", opened{}}, {"host", "off", opened{}},
	} {
		t.Run(strings.TrimSuffix(c.name+"-"+c.mode, "-"), func(t *testing.T) {
			p := example(t, c.name+".toml", c.mode)
			l, err := p.wanted(gatewayFacts(), nil)
			if err != nil {
				t.Fatal(err)
			}
			l.forwards = c.forwards
			lines := p.planText(l, false)
			got := strings.Join(lines, "\n") + "\n"
			// The embedded prefixes change with their source.
			got = regexp.MustCompile(`# \d+ (elements|routes)`).ReplaceAllString(got, "# N $1")
			path := "../testdata/plan/" + strings.TrimSuffix(c.name+"-"+c.mode, "-") + ".txt"
			if *updateGolden {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
			}

			if c.mode == "off" {
				return // there is nothing of ours
			}
			plan := routing.Plan(p.input(l), l.facts)
			if len(routing.Diff(plan, routing.State{})) == 0 {
				t.Error("the plan asks for nothing")
			}
			if steps := routing.Diff(plan, plan); len(steps) != 0 {
				t.Errorf("the second Diff: %v", steps)
			}
			secondSet(t, p.ruleset(l))
		})
	}
}

// secondSet sets a table in a kernel of its own, and fails when that would be
// done a second time.
func secondSet(t *testing.T, r nft.Ruleset) {
	t.Helper()
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		table, err := nft.Open(t.Context(), nft.Options{Mode: nft.Shared})
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		first, err := table.Set(t.Context(), r)
		if err != nil || len(first) == 0 {
			t.Errorf("the first Set: %v, %v", first, err)
		}
		diff, err := table.Diff(t.Context(), r)
		if err != nil || len(diff) != 0 {
			t.Errorf("the second Diff: %v, %v", diff, err)
		}
		again, err := table.Set(t.Context(), r)
		if err != nil || len(again) != 0 {
			t.Errorf("the second Set: %v, %v", again, err)
		}
	})
}
