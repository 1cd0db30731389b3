package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"smartdns/routing"
)

// A reload drops exactly the marks that would now be another path's. What lists
// hold counts, not what they are called.
func TestTurnedMarks(t *testing.T) {
	dir := t.TempDir()
	compile := func(names, nets, more string) *Parts {
		for file, text := range map[string]string{"names.txt": names, "nets.txt": nets} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		first := ""
		if more == "@" {
			first, more = `{ match = "a.test", ask = "domestic" },`, ""
		}
		return compiled(t, `
[list.names]
file = "`+dir+`/names.txt"
[list.nets]
file = "`+dir+`/nets.txt"
[decide]
names = [
  `+first+`
  { match = "bank.test", ask = "foreign", via = "direct" },
  { match = "list:names", ask = "foreign", via = "wg0" },
  `+more+`
  { match = "*", ask = "auto" },
]
addresses = [
  { match = ["private", "home"], via = "direct" },
  { match = "list:nets", via = "wg0" },
  { match = "*", via = "direct" },
]
`, "0.0.0.0/0")
	}
	before := func() *Parts { return compile("a.test\nb.test\n", "93.184.0.0/16\n", "") }
	mark := func(addr string, p routing.Path) routing.Mark {
		return routing.Mark{Addr: netip.MustParseAddr(addr), Path: p}
	}
	listed, pinned, other, bank, home := mark("93.184.216.34", "wg0"), mark("8.8.8.8", "wg0"), mark("9.9.9.9", routing.Direct), mark("93.184.1.1", routing.Direct), mark("223.5.5.5", routing.Direct)
	for _, c := range []struct {
		what string
		now  *Parts
		want []routing.Mark
	}{
		{"nothing changed", before(), nil},
		{"comments and spaces in a list", compile("# mine\na.test\n\n  b.test\n", "# nets\n93.184.0.0/16\n", ""), nil},
		{"a rule behind the pins", compile("a.test\nb.test\n", "93.184.0.0/16\n", `{ match = "x.test", ask = "domestic" },`), nil},
		{"the list of names lost one", compile("b.test\n", "93.184.0.0/16\n", ""), []routing.Mark{pinned}},
		{"the list of networks lost one", compile("a.test\nb.test\n", "1.2.0.0/16\n", ""), []routing.Mark{listed}},
		{"the list of networks got one", compile("a.test\nb.test\n", "93.184.0.0/16\n9.9.9.0/24\n", ""), []routing.Mark{other}},
		{"more pins to the tunnel", compile("a.test\nb.test\nc.test\n", "93.184.0.0/16\n", `{ match = "x.test", ask = "foreign", via = "wg0" },`), nil},
		{"a rule before the pins", compile("a.test\nb.test\n", "93.184.0.0/16\n", "@"), []routing.Mark{pinned, bank}},
	} {
		was := before()
		for _, m := range []routing.Mark{listed, pinned, other, bank, home} {
			want := false
			for _, w := range c.want {
				want = want || w == m
			}
			if got := turned(m, was, c.now); got != want {
				t.Errorf("%s: the mark %s %s is dropped: %t, want %t", c.what, m.Addr, m.Path, got, want)
			}
		}
	}
	free := compiled(t, "", "0.0.0.0/0")
	if len(free.Pins) != 0 {
		t.Errorf("a file that pins nothing: %v", free.Pins)
	}
}
