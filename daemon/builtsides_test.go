package daemon

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/routing"
)

// A reload builds those sides anew of which the file says something else, and
// those alone: the others keep their connections and what they know of their
// servers.
func TestUnchangedSidesGoOn(t *testing.T) {
	const first = `
[side.domestic]
servers = ["223.5.5.5"]

[side.foreign]
servers = ["tls://1.1.1.1", "tls://8.8.8.8"]

[side.office]
servers = ["10.0.0.53"]
`
	build := func(text string, m marks, known builtSides) builtSides {
		t.Helper()
		c, err := configs.Parse(strings.NewReader(text), "smartdns.toml")
		if err != nil {
			t.Fatal(err)
		}
		built, err := asking{m, outlets{}, func([]netip.AddrPort) {}, nil, slog.New(slog.DiscardHandler)}.sides(c, known)
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	before := build(first, marks{}, nil)
	for change, c := range map[string]struct {
		text string
		marks
		anew string // the sides that are
	}{
		"nothing":         {text: first},
		"its line":        {text: "\n\n" + first},
		"its subnet":      {text: strings.Replace(first, `"223.5.5.5"]`, "\"223.5.5.5\"]\necs = \"114.240.0.0/24\"", 1)},
		"whether private": {text: first + "private = true\n"},
		"a server":        {text: strings.Replace(first, "223.5.5.5", "223.6.6.6", 1), anew: "domestic"},
		"how to choose":   {text: strings.Replace(first, `"tls://8.8.8.8"]`, "\"tls://8.8.8.8\"]\nchoose = \"race\"", 1), anew: "foreign"},
		"a proxy":         {text: strings.Replace(first, `"tls://8.8.8.8"]`, "\"tls://8.8.8.8\"]\nsocks5 = \"10.0.0.1:1080\"", 1), anew: "foreign"},
		"the marks":       {text: first, marks: marks{field: 0x3f000000, numbers: map[routing.Path]int{"wg0": 1}}, anew: "domestic foreign office"},
	} {
		after := build(c.text, c.marks, before)
		for name, side := range before {
			anew := after[name].servers != side.servers
			if anew != strings.Contains(c.anew, name) || anew && after[name].judge == side.judge && side.judge != nil {
				t.Errorf("%s changed: whether side %s is made anew: %t", change, name, anew)
			}
		}
	}
}
