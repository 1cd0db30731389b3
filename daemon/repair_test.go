package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"smartdns/routing"
)

// A client's own path comes first; marks stand behind the lines up to home, a
// tunnel's before direct's, and before everything else.
func TestFlowsAreDecidedInTheTablesOrder(t *testing.T) {
	p := compiled(t, `
[decide]
clients = [
  { match = "192.168.8.9", via = "wg0" },
  { match = "02:00:00:00:00:08", via = "direct" },
]
addresses = [
  { match = "9.9.9.0/24", via = "direct" },
  { match = ["private", "home"], via = "direct" },
  { match = "93.184.0.0/16", via = "wg0" },
  { match = "*", via = "direct" },
]
`, "0.0.0.0/0")
	mac := func(a netip.Addr) routing.MAC {
		if a == netip.MustParseAddr("192.168.8.8") {
			return routing.MAC{2, 0, 0, 0, 0, 8}
		}
		return routing.MAC{}
	}
	for _, c := range []struct {
		from, to string
		marks    []routing.Path
		want     routing.Path
	}{
		{"192.168.8.9", "223.5.5.5", nil, "wg0"},
		{"192.168.8.9", "192.168.1.1", nil, routing.Direct},
		{"192.168.8.8", "8.8.8.8", []routing.Path{"wg0"}, routing.Direct},
		{"192.168.8.7", "8.8.8.8", nil, routing.Direct},
		{"192.168.8.7", "8.8.8.8", []routing.Path{"wg0"}, "wg0"},
		{"192.168.8.7", "8.8.8.8", []routing.Path{routing.Direct, "wg0"}, "wg0"},
		{"192.168.8.7", "93.184.216.34", nil, "wg0"},
		{"192.168.8.7", "93.184.216.34", []routing.Path{routing.Direct}, routing.Direct},
		{"192.168.8.7", "9.9.9.9", []routing.Path{"wg0"}, routing.Direct},
		{"192.168.8.7", "192.168.1.1", []routing.Path{"wg0"}, routing.Direct},
		{"192.168.8.7", "223.5.5.5", nil, routing.Direct},
		{"192.168.8.7", "223.5.5.5", []routing.Path{"wg0"}, "wg0"},
	} {
		from, to := netip.MustParseAddr(c.from), netip.MustParseAddr(c.to)
		if got := (decided{p, marked{to: c.marks}, mac}).path(from, to); got != c.want {
			t.Errorf("%s to %s with marks %v: %s, want %s", from, to, c.marks, got, c.want)
		}
	}
}

// Only what the file itself says of ways is a reason for flows to begin anew.
func TestRewritten(t *testing.T) {
	const lines = `
[decide]
names = [
  { match = "bank.test", ask = "foreign", via = "direct" },
  { match = "*", ask = "auto" },
]
addresses = [
  { match = ["private", "home"], via = "direct" },
  { match = "*", via = "wg0" },
]
`
	before := compiled(t, lines, "0.0.0.0/0")
	for _, c := range []struct {
		what, lines string
		want        bool
	}{
		{"nothing", lines, false},
		{"a comment", "# mine\n" + lines, false},
		{"another size of the cache", lines + "[cache]\nsize = \"8MiB\"\n", false},
		{"the default path", strings.Replace(lines, `"*", via = "wg0"`, `"*", via = "direct"`, 1), true},
		{"a line more", strings.Replace(lines, `  { match = "*", via`, `  { match = "9.9.9.0/24", via = "direct" },`+"\n"+`  { match = "*", via`, 1), true},
		{"a name is no longer pinned", strings.Replace(lines, `ask = "foreign", via = "direct"`, `ask = "foreign"`, 1), true},
		{"a client has a path", strings.Replace(lines, "[decide]\n", "[decide]\nclients = [{ match = \"192.168.8.9\", via = \"wg0\" }]\n", 1), true},
		{"another home", strings.Replace(lines, "[decide]\n", "[geo]\nhome = [\"9.9.9.0/24\"]\n[decide]\n", 1), true},
	} {
		if got := rewritten(before, compiled(t, c.lines, "0.0.0.0/0")); got != c.want {
			t.Errorf("%s: %t, want %t", c.what, got, c.want)
		}
	}
}
