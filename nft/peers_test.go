package nft_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

func farEnd() nft.PeerRuleset {
	pfx := netip.MustParsePrefix
	return nft.PeerRuleset{
		Name: "wg0", Own: []netip.Addr{addr("10.9.0.1"), addr("fd09::1")}, MTU: 1420,
		Peers: []netip.Prefix{pfx("10.9.0.2/32"), pfx("fd09::2/128"), pfx("192.168.8.0/24")},
		LAN: []nft.PeerLAN{
			{Name: "lan0", Prefixes: []netip.Prefix{pfx("10.20.0.0/24")}},
			{Name: "eth0", Translate: true, Prefixes: []netip.Prefix{pfx("192.0.2.0/24"), pfx("2001:db8:2::/64")}},
		},
		SNAT: []netip.Addr{addr("192.0.2.9")},
	}
}

// The table of a far end is made in one transaction, is what nft makes of its
// text, is left alone while it stands, and is mended when somebody changed it;
// it is no other far end's and not the daemon's.
func TestPeerTable(t *testing.T) {
	netnstest.Require(t, "nft")
	netnstest.Do(t, netnstest.New(t), func() {
		run := func(input string, args ...string) string {
			c := exec.Command("nft", args...)
			c.Stdin = strings.NewReader(input)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("nft %v: %v\n%s", args, err, out)
			}
			return string(out)
		}
		run("table inet smartdns {\n}\ntable inet smartdns-peer-wg1 {\n}\n", "-f", "-")
		before := run("", "list", "ruleset")
		table, err := nft.OpenPeerTable("wg0")
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		set := func(want nft.PeerRuleset) int {
			steps, err := table.Set(t.Context(), want)
			if err != nil {
				t.Error(err)
			}
			return len(steps)
		}
		r := farEnd()
		if set(r) == 0 {
			t.Error("nothing was made")
		}
		made := run("", "list", "table", "inet", r.TableName())
		for _, want := range []string{"masquerade", "snat ip to 192.0.2.9", "rt mtu", "10.9.0.2, 192.168.8.0/24", "maxseg size set 1380", "icmpx admin-prohibited"} {
			if !strings.Contains(made, want) {
				t.Errorf("no %q in\n%s", want, made)
			}
		}
		if n := set(r); n != 0 {
			t.Errorf("%d steps for what stands", n)
		}
		run("", "flush", "chain", "inet", r.TableName(), "srcnat")
		run("", "add", "element", "inet", r.TableName(), "peers_4", "{ 10.9.0.77 }")
		if set(r) == 0 || run("", "list", "table", "inet", r.TableName()) != made {
			t.Error("what somebody changed was not mended")
		}
		run("", "delete", "table", "inet", r.TableName())
		run(r.String(), "-f", "-")
		if got := run("", "list", "table", "inet", r.TableName()); got != made {
			t.Errorf("nft makes of the text\n%s\nwe made\n%s", got, made)
		}
		r.Peers = append(r.Peers, netip.MustParsePrefix("10.9.0.3/32"))
		if set(r) == 0 || !strings.Contains(run("", "list", "table", "inet", r.TableName()), "10.9.0.2/31") {
			t.Error("a new client is not in the table")
		}
		if names, err := nft.PeerTables(); err != nil || strings.Join(names, " ") != "wg0 wg1" {
			t.Errorf("tables of far ends: %q, %v", names, err)
		}
		for range 2 {
			if _, err := table.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if after := run("", "list", "ruleset"); after != before {
			t.Errorf("after Delete:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// The chains of others that drop what the clients send are named with the rules
// that let it through.
func TestPeerGates(t *testing.T) {
	netnstest.Require(t, "nft")
	netnstest.Do(t, netnstest.New(t), func() {
		load := func(text string) {
			c := exec.Command("nft", "-f", "-")
			c.Stdin = strings.NewReader(text)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("nft: %v\n%s", err, out)
			}
		}
		load("table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n")
		table, err := nft.OpenPeerTable("wg0")
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		gates, err := table.Gates(t.Context(), "wg0")
		if err != nil || len(gates) != 1 || gates[0].String() != "ip filter FORWARD" {
			t.Errorf("%v, %v", gates, err)
			return
		}
		load(strings.ReplaceAll(strings.Join(gates[0].Fix(), "\n"), "nft ", ""))
		if gates, err = table.Gates(t.Context(), "wg0"); err != nil || len(gates) != 0 {
			t.Errorf("after the fix: %v, %v", gates, err)
		}
	})
}

func TestPeerRulesetCheck(t *testing.T) {
	for _, change := range []func(*nft.PeerRuleset){
		func(r *nft.PeerRuleset) { r.Name = "a\"b" },
		func(r *nft.PeerRuleset) { r.LAN[0].Name = "" },
		func(r *nft.PeerRuleset) { r.SNAT = append(r.SNAT, addr("192.0.2.10")) },
	} {
		r := farEnd()
		if change(&r); r.Check() == nil {
			t.Errorf("taken: %+v", r)
		}
	}
	r := farEnd()
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}
