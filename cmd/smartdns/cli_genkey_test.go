package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// genkey | pubkey is a pair, in the form of wg(8).
func TestGenkeyPubkeyGenpsk(t *testing.T) {
	code, private, errs := command(t, "genkey")
	if code != exitYes || len(private) != 45 || errs != "" {
		t.Fatalf("genkey: exit %d, %d bytes\n%s", code, len(private), errs)
	}
	pubkey := func(in string) (string, error) {
		var out, errs bytes.Buffer
		root := newRoot(&out, &errs)
		root.SetArgs([]string{"pubkey"})
		root.SetIn(strings.NewReader(in))
		err := root.Execute()
		return out.String(), err
	}
	if out, err := pubkey("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n"); err != nil || out != "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n" {
		t.Errorf("pubkey: %q, %v", out, err)
	}
	if out, err := pubkey(private[:20]); err == nil || out != "" || strings.Contains(err.Error(), private[:8]) {
		t.Errorf("pubkey of half a key: %q, %v", out, err)
	}
	if code, out, _ := command(t, "genpsk"); code != exitYes || len(out) != 45 || out == private {
		t.Errorf("genpsk: exit %d, %q", code, out)
	}
}

func TestGenkeyWarnsAboutAFileThatOthersRead(t *testing.T) {
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		f, err := os.OpenFile(filepath.Join(t.TempDir(), "key"), os.O_CREATE|os.O_WRONLY, mode)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Chmod(mode); err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		if code := run([]string{"genkey"}, f, &errs); code != exitYes || (errs.Len() > 0) != warns {
			t.Errorf("mode %o: exit %d, %q", mode, code, errs.String())
		}
	}
}
