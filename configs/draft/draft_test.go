package draft_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
	"smartdns/configs/draft"
)

var update = flag.Bool("update", false, "write testdata anew")

// args reads a command line: options as smartdns init has them, then specs. A
// quoted word may have blanks.
func args(t *testing.T, file string) (o draft.Options, specs []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o = draft.Options{Path: "/etc/smartdns/smartdns.toml", Host: os.DirFS(filepath.Dir(file))}
	text := strings.TrimSpace(string(b))
	for text != "" {
		var word string
		if rest, ok := strings.CutPrefix(text, "'"); ok {
			word, text, _ = strings.Cut(rest, "'")
		} else {
			word, text, _ = strings.Cut(text, " ")
		}
		text = strings.TrimSpace(text)
		next := func() (w string) { w, text, _ = strings.Cut(text, " "); return w }
		switch word {
		case "--tunnel":
			o.Tunnels = append(o.Tunnels, next())
		case "--lan":
			o.LAN = append(o.LAN, next())
		default:
			specs = append(specs, word)
		}
	}
	return o, specs
}

// Each directory of testdata is a host: its args are what smartdns init is
// called with, and want is the file, those beside it, and what became of the
// other lines.
func TestFromOtherPrograms(t *testing.T) {
	hosts, err := filepath.Glob("testdata/*/args")
	if err != nil || len(hosts) < 1 {
		t.Fatalf("%d hosts in testdata, %v", len(hosts), err)
	}
	for _, file := range hosts {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			o, specs := args(t, file)
			d, err := draft.From(specs, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := configs.Parse(strings.NewReader(d.Text()), "smartdns.toml"); err != nil {
				t.Errorf("the new file is not valid: %v", err)
			}
			var got strings.Builder
			fmt.Fprintf(&got, "%s\n== from %s: %s\n", d.Text(), d.Program(), strings.Join(d.Sources(), " "))
			for _, n := range d.Notes() {
				fmt.Fprintf(&got, "%-7s %s\n", n.Kind, n)
				if n.Why == "" || n.Text == "" {
					t.Errorf("a note without a reason or its line: %+v", n)
				}
			}
			for _, f := range d.Files() {
				fmt.Fprintf(&got, "\n== %s\n%s", f.Path, f.Text)
			}
			want := filepath.Join(dir, "want")
			if *update {
				if err := os.WriteFile(want, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(b), got.String()); diff != "" {
				t.Errorf("(-want +got; -update writes it anew)\n%s", diff)
			}
		})
	}
}
