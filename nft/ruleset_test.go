package nft_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/lab/netnstest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestTextIsTheGoldenOne(t *testing.T) {
	for name, r := range rulesets() {
		t.Run(name, func(t *testing.T) {
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("..", "testdata", "nft", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(r.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), r.String()); d != "" {
				t.Errorf("the text changed (-want +got), go test -run Golden -update writes it:\n%s", d)
			}
		})
	}
}

func TestNFTReadsTheText(t *testing.T) {
	netnstest.Require(t, "nft")
	for name, r := range rulesets() {
		t.Run(name, func(t *testing.T) {
			ns := netnstest.New(t)
			netnstest.Do(t, ns, func() {
				load(t, r.Full())
			})
		})
	}
}

// load gives text to nft -f.
func load(t testing.TB, text string) {
	t.Helper()
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("nft -f: %v\n%s", err, out)
	}
}

// nftOut runs nft and returns what it prints.
func nftOut(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Errorf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
