package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/configs"
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

// The resolver tells a side by its proxy, and as whom it speaks to that; the
// cache's file does not depend on a password.
func TestSidesAreToldByTheirProxy(t *testing.T) {
	for socks5, want := range map[string]string{"": "", "10.0.0.1": "10.0.0.1:1080", "al:s3cret@10.0.0.1": "al@10.0.0.1:1080"} {
		c, err := configs.Parse(strings.NewReader("[side.foreign]\nservers = [\"tls://8.8.8.8\"]\nsocks5 = \""+socks5+"\"\n"), "smartdns.toml")
		if err != nil {
			t.Fatal(err)
		}
		if got := policySides(c, nil)[resolver.Foreign].Proxy; got != want {
			t.Errorf("%q: the side goes through %q, want %q", socks5, got, want)
		}
	}
}

func TestQueryShowsTheDetour(t *testing.T) {
	v := resolver.Visit{Side: "foreign", Path: "wg0", Tries: []resolver.Try{
		{Server: "8.8.8.8", Proto: "udp", Took: time.Second}, {Server: "tls://1.1.1.1", Proto: "tls", Took: time.Second},
	}}
	got := asked(v, map[routing.Path]routing.Path{"wg0": routing.Direct})
	if got[0].Via != "wg0" || got[1].Via != string(routing.Direct) {
		t.Errorf("via %s and %s: only the encrypted server is asked around the tunnel", got[0].Via, got[1].Via)
	}
	if got := asked(v, map[routing.Path]routing.Path{"wg0": "wg1"}); got[0].Via != "wg1" || got[1].Via != "wg1" {
		t.Errorf("while wg1 stands in: %+v", got)
	}
	if got := asked(v, nil); got[1].Via != "wg0" {
		t.Errorf("via %s, and the tunnel is up", got[1].Via)
	}
}
