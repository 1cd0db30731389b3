package nft_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// Chains like those of ufw and Docker (a policy), firewalld (a last rule), and
// of somebody who has let the tunnel through.
func TestGates(t *testing.T) {
	netnstest.Require(t, "nft")
	ns := netnstest.New(t)
	netnstest.Do(t, ns, func() {
		load := func(rules string) {
			c := exec.Command("nft", "-f", "-")
			c.Stdin = strings.NewReader(rules)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("nft: %v\n%s", err, out)
			}
		}
		load(`
table ip filter {
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
		ct state established accept
	}
}
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority 10; policy accept;
		ct state established accept
		counter reject with icmpx type admin-prohibited
	}
}
table inet open {
	chain forward {
		type filter hook forward priority 0; policy accept;
		ip saddr 192.0.2.1 drop
	}
}
table inet guard {
	chain incoming {
		type filter hook input priority 0; policy drop;
		iifname "lo" accept
	}
}
table ip6 done {
	chain forward {
		type filter hook forward priority 0; policy drop;
		oifname "wg0" accept
	}
}
`)
		lan := []nft.Client{{Link: "lan0", Addr: netip.MustParseAddr("192.168.8.20"), Us: netip.MustParseAddr("192.168.8.1")}}
		table, err := nft.Open(t.Context(), nft.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		gates, err := table.Gates(t.Context(), "wg0", lan)
		if err != nil {
			t.Error(err)
		}
		var got []string
		for _, g := range gates {
			got = append(got, g.String())
			load(strings.ReplaceAll(strings.Join(g.Fix(), "\n"), "nft ", ""))
		}
		slices.Sort(got)
		if want := []string{"inet firewalld filter_FORWARD", "ip filter FORWARD"}; !slices.Equal(got, want) {
			t.Errorf("gates %q, want %q", got, want)
		}
		if gates, err = table.Gates(t.Context(), "wg0", lan); err != nil || len(gates) != 0 {
			t.Errorf("after the fixes: %v, %v", gates, err)
		}
	})
}
