package draft_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"smartdns/configs"
	"smartdns/configs/draft"
)

// seeds are the files of testdata.
func seeds(f *testing.F) {
	err := filepath.WalkDir("testdata", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(p) == "want" || strings.Contains(p, "fuzz") {
			return err
		}
		b, err := os.ReadFile(p)
		f.Add(string(b))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
}

// fuzz checks that any file is turned into a valid one or an error, with a
// reason for whatever is said about it.
func fuzz(f *testing.F, program draft.Program) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 64<<10 {
			t.Skip("SKIPPED: larger than what a fuzzer finds anything in")
		}
		draft.Detect([]byte(text))
		if d, err := draft.From([]string{text}, draft.Options{}); err == nil { // a command line
			if _, err := configs.Parse(strings.NewReader(d.Text()), "smartdns.toml"); err != nil {
				t.Fatalf("%v\n%s", err, d.Text())
			}
		}
		host := fstest.MapFS{"etc/it.conf": {Data: []byte(text)}, "etc/list.txt": {Data: []byte("example.com\n")}}
		for _, path := range []string{"", "/etc/smartdns/smartdns.toml"} {
			d, err := draft.From([]string{string(program) + ":/etc/it.conf"}, draft.Options{Path: path, Host: host})
			if err != nil {
				if strings.Contains(err.Error(), "checking the draft") {
					t.Fatal(err)
				}
				continue
			}
			if _, err := configs.Parse(strings.NewReader(d.Text()), "smartdns.toml"); err != nil {
				t.Fatalf("%v\n%s", err, d.Text())
			}
			for _, n := range d.Notes() {
				if n.Why == "" || n.Kind == "" {
					t.Errorf("%+v", n)
				}
			}
		}
	})
}

func FuzzDnsmasq(f *testing.F) { fuzz(f, draft.Dnsmasq) }
func FuzzMosdns(f *testing.F)  { fuzz(f, draft.Mosdns) }
func FuzzPymumu(f *testing.F)  { fuzz(f, draft.Pymumu) }
func FuzzChinaDNS(f *testing.F) {
	f.Add("chinadns-ng -c 223.5.5.5 -t 8.8.8.8 -N")
	f.Add("-l53 --cache=100")
	fuzz(f, draft.ChinaDNS)
}
