package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// quickCase is a wg-quick file, as one changes the provider's.
type quickCase struct {
	name    string
	replace []string // pairs, for the file
	mtu     string   // of the uplink
	config  string   // ours, beside the tunnel
}

// The same file by Debian's wg-quick, with its wireguard-go, and by smartdns run,
// with its own device: addresses, MTU, what the device has, and the way that
// traffic goes by the routes and rules of each. Where the two differ on purpose,
// README says so.
func TestAsWgQuick(t *testing.T) {
	for _, need := range []string{"wg-quick", "wireguard-go"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("SKIPPED: no %s: install wireguard-tools and wireguard-go", need)
		}
	}
	const all = "[routing]\nmode = \"all\"\n"
	for _, c := range []quickCase{
		{name: "everything", config: all},
		{name: "an MTU, a port, two lines of addresses", config: all, replace: []string{
			"Address = ", "MTU = 1300\nListenPort = 51999\nAddress = ", "\n\n[Peer]", "\nAddress = 10.9.7.2\n\n[Peer]",
		}},
		{name: "a few prefixes, and an uplink with a small MTU", mtu: "1400",
			replace: []string{"AllowedIPs = 0.0.0.0/0, ::/0", "AllowedIPs = 93.184.216.0/24, 2606:2800::/32"},
			config:  "[decide]\naddresses = [{ match = \"private\", via = \"direct\" }, { match = \"*\", via = \"direct\" }]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			text, err := os.ReadFile(w.Gateway.WireGuardFile())
			if err != nil {
				t.Fatal(err)
			}
			s := strings.Replace(string(text), "DNS = "+lab.FarV4.String()+"\n", "", 1) // no resolvconf here
			s = strings.NewReplacer(c.replace...).Replace(s)
			if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.mtu != "" {
				w.ip("link", "set", "wan0", "mtu", c.mtu)
			}
			if out, err := w.run("wg-quick", "up", w.Gateway.WireGuardFile()); err != nil {
				t.Fatal(err, out)
			}
			quick := w.shown()
			quickWays := w.ways()
			if out, err := w.run("wg-quick", "down", w.Gateway.WireGuardFile()); err != nil {
				t.Fatal(err, out)
			}
			w.config = fmt.Sprintf("[listen]\nlan = [\"lan0\"]\n[tunnel.wg0]\nconfig = %q\n%s", w.Gateway.WireGuardFile(), c.config)
			w.start()
			w.waitUp()
			ours := w.shown()
			for what, want := range quick {
				if ours[what] != want {
					t.Errorf("%s: wg-quick has\n%s\nwe have\n%s", what, want, ours[what])
				}
			}
			for to, got := range w.ways() {
				if want := quickWays[to]; got != want {
					t.Errorf("%s: wg-quick's goes %s, ours %s", to, want, got)
				}
			}
			w.stop()
		})
	}
}

// shown is what the kernel and the device show of wg0.
func (w *world) shown() map[string]string {
	w.t.Helper()
	out, err := w.run("ip", "-j", "addr", "show", "dev", "wg0")
	if err != nil {
		w.t.Fatal(err)
	}
	var links []struct {
		MTU   int `json:"mtu"`
		Addrs []struct {
			Local  string `json:"local"`
			Bits   int    `json:"prefixlen"`
			Scope  string `json:"scope"`
			Family string `json:"family"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		w.t.Fatal(err, out)
	}
	var addrs []string
	for _, a := range links[0].Addrs {
		if a.Scope == "global" { // of the link itself: an old wireguard-go leaves the kernel's fe80
			addrs = append(addrs, fmt.Sprintf("%s/%d", a.Local, a.Bits))
		}
	}
	slices.Sort(addrs)
	shown := map[string]string{"addresses": strings.Join(addrs, " "), "MTU": fmt.Sprint(links[0].MTU)}
	for _, what := range []string{"allowed-ips", "persistent-keepalive", "preshared-keys", "public-key"} {
		out, err := w.run("wg", "show", "wg0", what)
		if err != nil {
			w.t.Fatal(err)
		}
		words := strings.Fields(out)
		slices.Sort(words)
		shown[what] = strings.Join(words, " ")
	}
	if out, err := w.run("wg", "show", "wg0", "listen-port"); err == nil && strings.TrimSpace(out) == "51999" {
		shown["port"] = "51999"
	}
	return shown
}

// ways says how traffic of the gateway leaves.
func (w *world) ways() map[string]string {
	w.t.Helper()
	ways := map[string]string{}
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6, lab.HomeWebV4, lab.HomeWebV6} {
		s, err := w.Gateway.Connect(w.context(5*time.Second), port443(to))
		if err != nil {
			ways[to.String()] = "nowhere: " + err.Error()
			continue
		}
		ways[to.String()] = way(s.Seen)
		s.Close()
	}
	for _, to := range []netip.Addr{lab.ClientV4, lab.ClientV6, lab.BoxV4, lab.BoxV6} {
		if pong, err := w.Gateway.Ping(w.context(2*time.Second), lab.Ping{To: to}); err == nil && pong.EchoReply() {
			ways[to.String()] = "reached"
		} else {
			ways[to.String()] = "not reached"
		}
	}
	return ways
}

// Without the kernel's WireGuard up refuses, says what to use and leaves nothing;
// down stops a running daemon, whose hooks run where they are allowed; save and
// strip take the running tunnel's file.
func TestUpDownSaveStrip(t *testing.T) {
	w := newWorld(t)
	before := w.dump()
	out, err := w.cli("up", w.Gateway.WireGuardFile())
	if err == nil || !strings.Contains(err.Error(), "no WireGuard") || !strings.Contains(err.Error(), "smartdns run") {
		t.Errorf("up: %q, %v", out, err)
	}
	w.equal("after up was refused", w.dump(), before)

	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	done := w.Dir + "/done"
	hooked := strings.Replace(string(text), "[Interface]\n", "[Interface]\nPreUp = echo %i pre-up >> "+done+"\nPostUp = ip link show %i && echo post-up >> "+done+
		"\nPreDown = echo pre-down >> "+done+"\nPostDown = echo post-down >> "+done+"\n", 1)
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(hooked), 0o600); err != nil {
		t.Fatal(err)
	}
	w.config = inTable(w.config, "[tunnel.wg0]", "hooks = true")
	w.start()
	w.waitUp()
	if out, err := w.run("wg", "set", "wg0", "listen-port", "51777"); err != nil {
		t.Fatal(err, out)
	}
	if out, err := w.cli("save", "wg0"); err != nil {
		t.Error(out, err)
	}
	saved, _ := os.ReadFile(w.Gateway.WireGuardFile())
	for _, want := range []string{"ListenPort = 51777\n", "PostUp = ip link show %i && echo", "Address = 10.9.0.2/32\n", "DNS = "} {
		if !strings.Contains(string(saved), want) {
			t.Errorf("no %q in what was saved:\n%s", want, saved)
		}
	}
	if strings.Contains(string(saved), "FwMark") {
		t.Errorf("our mark was saved:\n%s", saved)
	}
	stripped, err := w.cli("strip", "wg0")
	quick, qerr := w.run("wg-quick", "strip", w.Gateway.WireGuardFile())
	if err != nil || qerr != nil || stripped != quick {
		t.Errorf("strip: %q, %v; wg-quick: %q, %v", stripped, err, quick, qerr)
	}
	if out, err := w.cli("reload"); err != nil {
		t.Error(out, err)
	}
	w.noLeaks()
	if out, err := w.cli("down"); err != nil {
		t.Error(out, err)
	}
	w.equal("after down", w.dump(), before)
	if b, _ := os.ReadFile(done); strings.Join(strings.Fields(string(b)), " ") != "wg0 pre-up post-up pre-down post-down" {
		t.Errorf("hooks: %q", b)
	}
	if out, err := w.cli("down"); err != nil {
		t.Error("down without anything to take down:", out, err)
	}
}
