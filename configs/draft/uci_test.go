package draft_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"smartdns/configs"
	"smartdns/configs/draft"
	"smartdns/configs/units"
)

func TestUCIBecomesTheFile(t *testing.T) {
	const dir = "testdata/uci/"
	data, err := os.ReadFile(dir + "smartdns")
	if err != nil {
		t.Fatal(err)
	}
	got, err := draft.UCI(data, "smartdns")
	if err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(strings.NewReader(got), "smartdns")
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Error(w)
	}
	if *update {
		if err := os.WriteFile(dir+"want", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(dir + "want")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got; -update writes it anew)\n%s", diff)
	}
}

// What is installed on OpenWrt works once it is enabled.
func TestInstalledUCIIsAConfiguration(t *testing.T) {
	for _, f := range units.Files(units.Procd, units.Boot{}) {
		if !f.Settings {
			continue
		}
		text, err := draft.UCI([]byte(f.Text), f.Path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := configs.Parse(strings.NewReader(text), f.Path)
		if err != nil || len(c.Tunnels) != 1 || len(c.Listen.LAN) != 1 {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestUCISaysWhereItIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"config listen\n\toption dns '1.2.3.4\n":       "smartdns:2: a quote is not closed on its line",
		"option dns 1\n":                               "smartdns:1: option dns: no config line is above it",
		"config listen\n\toption dns\n":                "smartdns:2: write option KEY 'VALUE'",
		"config\n":                                     "smartdns:1: write config TYPE",
		"configure x\n":                                `smartdns:1: "configure": a line begins with`,
		"config tunnel\n\toption config '/a'\n":        "smartdns:1: write config tunnel 'NAME'",
		"config lisen\n":                               `smartdns:1: there is no table "lisen"`,
		"config smartdns 'main'\n\toption fiel '/x'\n": `smartdns:2: config smartdns has no option "fiel"`,
		"config decide\n\tlist names 'x'\n":            "smartdns:2: names is a table: write a config of its own",
		"config tunnel 'wg0'\n\tlist config '/a'\n\tlist config /b\n": "smartdns:2: config has one value",
		// What configs finds wrong is at the line of the same number.
		"\nconfig listen\n\toption redirekt '1'\n":                     "smartdns:3: [listen] redirekt",
		"config tunnel 'wg0'\n\n\toption when_down 'open'\n":           "smartdns:3: [tunnel.wg0] when_down",
		"config name\n\tlist match a.org\n\toption ask 'nobody'\n":     "smartdns:3: [decide] names[0] ask",
		"config listen\n\toption redirect 'perhaps'\n":                 "smartdns:2: [listen] redirect",
		"config marks\n\toption size 'many'\n":                         "smartdns:2: [marks] size",
		"config listen\nconfig listen\n\toption system 1\n":            "smartdns:2: ",
		"config list cn\n\toption name 'my-list'\n\toption file 'x'\n": "smartdns:3: [list.my-list] file",
	} {
		got, err := draft.UCI([]byte(text), "smartdns")
		if err == nil {
			_, err = configs.Parse(strings.NewReader(got), "smartdns")
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s…\n%s", text, err, want, got)
		}
	}
}

// No value gets out of its quotes: the file has the keys of the sections, with
// their values, and no others.
func FuzzUCI(f *testing.F) {
	f.Add("config listen\n\toption cert \"a\\\"b\"'c'\\ d\n\tlist dns '1'\n\tlist dns \"\\n[x]\"\n")
	f.Add("config name x\n\tlist match 'a'\n\tlist match \"*\"\nconfig side 'a.b'\n\toption via \"\\\\\"\r\n#x")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := draft.UCI([]byte(text), "smartdns")
		if err != nil {
			return
		}
		if strings.Count(got, "\n") < strings.Count(text, "\n") {
			t.Fatalf("lines were lost:\n%s", got)
		}
		var tables map[string]any
		if err := toml.Unmarshal([]byte(got), &tables); err != nil {
			return // a table or key twice, which configs says
		}
		options := 0
		for line := range strings.Lines(text) {
			if w := strings.Fields(line); len(w) > 0 && (w[0] == "option" || w[0] == "list" || w[0] == "config") {
				options++
			}
		}
		if n := leaves(tables); n > options+6 { // what matches everything may be added
			t.Fatalf("%d values of %d lines:\n%s", n, options, got)
		}
	})
}

func leaves(v any) int {
	switch v := v.(type) {
	case map[string]any:
		n := 0
		for _, x := range v {
			n += leaves(x)
		}
		return n
	case []any:
		n := 0
		for _, x := range v {
			n += leaves(x)
		}
		return n
	}
	return 1
}
