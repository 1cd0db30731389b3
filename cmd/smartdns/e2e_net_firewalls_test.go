package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// firewalls are rulesets as other programs load them on a router, which let the
// LAN out by the uplink and know no tunnel: with the chain that drops, and what
// those programs add when they are told to let the LAN into it.
var firewalls = []struct{ name, rules, gate, pass string }{
	{"Docker", `
table ip filter {
	chain DOCKER-USER { }
	chain DOCKER-FORWARD { iifname "docker0" accept; }
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
		jump DOCKER-USER
		jump DOCKER-FORWARD
		ct state established,related accept
		iifname "lan0" oifname "wan0" accept
	}
}
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
	}
}
`, "ip filter FORWARD of Docker", `insert rule ip filter DOCKER-USER iifname "lan0" oifname "wg0" accept`},
	{"ufw", `
table ip filter {
	chain ufw-user-forward { iifname "lan0" oifname "wan0" accept; }
	chain ufw-before-forward {
		ct state related,established accept
		jump ufw-user-forward
	}
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
		jump ufw-before-forward
	}
}
`, "ip filter FORWARD of ufw", `add rule ip filter ufw-user-forward iifname "lan0" oifname "wg0" accept`},
	{"firewalld", `
table inet firewalld {
	chain filter_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
	chain filter_FORWARD_POLICIES { iifname "lan0" oifname "wan0" accept; }
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		jump filter_FORWARD_POLICIES
		ct state invalid drop
		reject with icmpx admin-prohibited
	}
}
`, "inet firewalld filter_FORWARD of firewalld", `add rule inet firewalld filter_FORWARD_POLICIES iifname "lan0" oifname "wg0" accept`},
}

var errUnnamed = errors.New("it is in no condition")

// Beside Docker, ufw and firewalld, there before us or loaded later: what they
// let through goes its way, what they drop is named with whose it is and leaks
// nowhere, and goes into the tunnel once they let it. Their tables are as they
// made them (SECURITY F-15, F-16).
func TestBesideOtherFirewalls(t *testing.T) {
	for _, f := range firewalls {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.nft(f.rules)
			tables := w.foreignTables()
			w.start()
			w.waitUp()
			w.passes(f.gate, f.pass)
			w.unload(f.rules)
			w.nft(f.rules) // as when the program is started after us
			w.passes(f.gate, f.pass)
			w.unload(f.rules)
			w.nft(f.rules)
			if now := w.foreignTables(); now != tables {
				t.Errorf("its tables are\n%s\nand were\n%s", now, tables)
			}
			w.stop()
			if now := w.foreignTables(); now != tables {
				t.Errorf("after the stop its tables are\n%s\nand were\n%s", now, tables)
			}
			w.noLeaks()
		})
	}
}

// passes checks what goes through a firewall before and after it lets the LAN
// into the tunnel.
func (w *world) passes(gate, pass string) {
	w.t.Helper()
	const abroad, home = "93.184.216.34:443", "39.156.66.10:443"
	for to, want := range map[string]string{abroad: "tunnel", home: "direct"} {
		if err := w.comesBy(w.Gateway.Namespace, to, want); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.comesBy(w.Client, home, "direct"); err != nil {
		w.t.Error(err)
	}
	if err := w.comesBy(w.Client, abroad, "tunnel"); err == nil {
		w.t.Error("the LAN goes through a chain that knows no tunnel")
	}
	w.waitFor("status names "+gate, 20*time.Second, func() error {
		for _, c := range w.status().Conditions {
			if strings.Contains(c.What, gate) && c.Fix != "" {
				return nil
			}
		}
		return errUnnamed
	})
	w.nft(pass)
	if err := w.comesBy(w.Client, abroad, "tunnel"); err != nil {
		w.t.Errorf("after the fix: %v", err)
	}
}

// foreignTables is what nft lists, without our table.
func (w *world) foreignTables() string {
	w.t.Helper()
	out, err := w.Gateway.Exec(w.context(10*time.Second), "bash", "-c", "nft -s list tables | grep -v smartdns | while read t; do nft -s list $t; done")
	if err != nil {
		w.t.Error(err)
	}
	return out
}

// unload deletes the tables of a ruleset.
func (w *world) unload(rules string) {
	w.t.Helper()
	for l := range strings.Lines(rules) {
		if table, ok := strings.CutPrefix(l, "table "); ok {
			w.nft("delete table " + strings.TrimSuffix(strings.TrimSpace(table), " {"))
		}
	}
}
