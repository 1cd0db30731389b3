package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/resolver"
	"smartdns/routing"
)

// foreign-first asks as a client at home; without a server that listens to
// that, it is half blind, and check says so.
func TestCheckWarnsWhenNobodyAnswersBySubnet(t *testing.T) {
	for _, c := range []struct {
		text string
		warn bool
	}{
		{`[side.foreign]` + "\n" + `servers = ["tls://1.1.1.1", "tls://9.9.9.9"]`, true},
		{`[side.foreign]` + "\n" + `servers = ["tls://1.1.1.1", "tls://8.8.4.4"]`, false},
		{`[decide]` + "\n" + `auto = "race"` + "\n" + `[side.foreign]` + "\n" + `servers = ["tls://1.1.1.1"]`, false},
		{``, false},
	} {
		file := filepath.Join(t.TempDir(), "smartdns.toml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Check(Options{Config: file})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(r.Warnings, "\n"), "by the client's subnet"); got != c.warn {
			t.Errorf("%s\nwarnings %q", c.text, r.Warnings)
		}
	}
}

func TestQueryShowsTheDetour(t *testing.T) {
	v := resolver.Visit{Side: "foreign", Path: "wg0", Tries: []resolver.Try{
		{Server: "8.8.8.8", Proto: "udp", Took: time.Second}, {Server: "tls://1.1.1.1", Proto: "tls", Took: time.Second},
	}}
	got := asked(v, true)
	if got[0].Via != "wg0" || got[1].Via != string(routing.Direct) {
		t.Errorf("via %s and %s: only the encrypted server is asked around the tunnel", got[0].Via, got[1].Via)
	}
	if got := asked(v, false); got[1].Via != "wg0" {
		t.Errorf("via %s, and the tunnel is up", got[1].Via)
	}
}
