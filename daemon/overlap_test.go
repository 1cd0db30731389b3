package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/geo"
	"smartdns/web/api"
)

func overlapsOf(t *testing.T, text string, files map[string]string, most int) (api.Overlaps, error) {
	t.Helper()
	dir := t.TempDir()
	files["smartdns.toml"] = strings.ReplaceAll(text, "DIR", dir)
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Overlaps(Options{Config: filepath.Join(dir, "smartdns.toml"), Dirs: Dirs{State: dir}}, most)
	for _, o := range [][]api.Overlap{got.Names, got.Prefixes} {
		for i := range o {
			for _, c := range []*api.Claim{&o[i].Used, &o[i].Other} {
				if !strings.HasPrefix(c.List, "embedded") && !strings.HasSuffix(c.List, ")") {
					t.Errorf("%s has no date", c.List)
				}
				if !strings.Contains(c.List, "embedded") {
					c.List, _, _ = strings.Cut(c.List, " (") // of today
				}
			}
		}
	}
	return got, err
}

func TestOverlaps(t *testing.T) {
	const config = `[list.foreign]
file = "DIR/foreign"
[list.ads]
file = "DIR/ads"
[list.cn-domains]
file = "DIR/cn"
[list.nets]
file = "DIR/nets"
region = "CN"
[geo]
sources = ["list:nets", "embedded"]
[decide]
names = [
  { match = "list:ads", answer = "block" },
  { match = "list:foreign", ask = "foreign" },
  { match = "list:cn-domains", ask = "domestic" },
  { match = "*", ask = "auto" },
]
`
	var nets strings.Builder // the embedded ones but the first, and one that is not
	lines := strings.Split(strings.TrimSpace(geoText(t)), "\n")
	nets.WriteString(strings.Join(lines[1:], "\n") + "\n8.8.8.0/24\n")
	files := map[string]string{
		"foreign": "google.com\nexample.cn\nfull:one.example.org\n",
		"ads":     "google.com\n",
		"cn":      "dl.google.com\ncn\ngoogle.com\nfull:google.com\nbaidu.com\nx.one.example.org\n",
		"nets":    nets.String(),
	}
	got, err := overlapsOf(t, config, files, 3)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(line, entry string) api.Claim {
		return api.Claim{Says: "ask foreign", List: "foreign:" + line, Entry: entry}
	}
	domestic := func(line, entry string) api.Claim {
		return api.Claim{Says: "ask domestic", List: "cn-domains:" + line, Entry: entry}
	}
	want := api.Overlaps{
		Schema: api.Schema, NameCount: 4, PrefixCount: 2,
		Names: []api.Overlap{
			{What: "example.cn", Used: foreign("2", "example.cn"), Other: domestic("2", "cn")},
			{What: "dl.google.com", Used: foreign("1", "google.com"), Other: domestic("1", "dl.google.com")},
			{What: "google.com", Used: foreign("1", "google.com"), Other: domestic("3", "google.com")},
		},
		Prefixes: []api.Overlap{
			{What: "1.0.1.0/24", Used: api.Claim{Says: "home", List: "embedded:6 (" + geo.EmbeddedDate + ")", Entry: "1.0.1.0/24"}, Other: api.Claim{Says: "abroad", List: "no line of nets"}},
			{What: "8.8.8.0/24", Used: api.Claim{Says: "home", List: "nets:7553", Entry: "8.8.8.0/24"}, Other: api.Claim{Says: "abroad", List: "no line of embedded (" + geo.EmbeddedDate + ")"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// geoText is the embedded prefixes, one a line.
func geoText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "geo", "data", "cn.txt"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for strings.HasPrefix(text, "#") {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

func TestOverlapsOfABadList(t *testing.T) {
	_, err := overlapsOf(t, "[list.cn-domains]\nfile = \"DIR/cn\"\n", map[string]string{"cn": "<html>\n"}, 3)
	if err == nil || !strings.Contains(err.Error(), "smartdns.toml:1: [list.cn-domains]") {
		t.Errorf("%v", err)
	}
}
