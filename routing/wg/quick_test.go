package wg_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/routing/wg"
)

// What is left of every file is what wg-quick leaves.
func TestStripIsWgQuicks(t *testing.T) {
	quick, err := exec.LookPath("wg-quick")
	if err != nil {
		t.Skip("SKIPPED: no wg-quick: install wireguard-tools")
	}
	files, err := filepath.Glob(testdata + "/*.conf")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	texts := map[string]string{
		"no newline": "[interface]\n  address=10.0.0.1/8 # x\nPrivateKey = a # b\n[PEER] # c\n\tAddress = kept\nMTU = 3",
		"empty":      "",
		"odd":        "#[Interface]\n[Interface]#\nMTU=1\n # note\nDNS\n\n[Other]\nMTU = 2\n\n\n",
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = string(b)
	}
	for name, text := range texts {
		if strings.ContainsRune(text, 0) || strings.Contains(text, "\r") {
			continue // bash drops the one and keeps the other
		}
		path := filepath.Join(t.TempDir(), "wg0.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := exec.Command(quick, "strip", path).Output()
		if err != nil {
			continue // it refuses a bad value
		}
		if got := wg.Strip(text); got != string(want) {
			t.Errorf("%s: %q, wg-quick says %q", name, got, want)
		}
	}
}

// Hooks run in the order of the file, with %i replaced, by bash; what they say
// is logged without keys; one that fails names its line and ends the rest.
func TestHooks(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "done")
	c := parse(t, "[Interface]\nPrivateKey = "+key(t)+`
PostUp = echo up-%i >> `+file+`
PreUp = echo pre >> `+file+`
PostUp = [[ %i == wg0 ]] && echo second >> `+file+`; echo "key 5lKhPeYXdhgBdxNobFQmwQ4sRyw5zHecsPF7+IRURW0="
PostUp = exit 3
PostUp = echo never >> `+file+`
`)
	var log bytes.Buffer
	err := c.RunHooks(t.Context(), wg.PostUp, "wg0", slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err == nil || err.Error() != "wg0.conf:6: running PostUp: exit status 3" {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "up-wg0\nsecond\n" {
		t.Errorf("done: %q", b)
	}
	for _, want := range []string{"[#] echo up-wg0", "key (hidden)"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "5lKhPeYX") {
		t.Errorf("a key in the log:\n%s", log.String())
	}
	if err := c.RunHooks(t.Context(), wg.PreDown, "wg0", slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

func TestTheFilesFwMarkHasTheBitsOfOthers(t *testing.T) {
	c := parse(t, "[Interface]\nPrivateKey = "+key(t)+"\nFwMark = 0xff00ca6c\n")
	if got := c.Mark(0x01000000, 0x3f000000); got != 0xc100ca6c {
		t.Errorf("%#x", got)
	}
}
