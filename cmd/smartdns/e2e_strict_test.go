package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// strictly is the gateway's configuration with the kill switch.
func strictly(config string) string { return config + "\n[routing]\nstrict = true\n" }

// closed checks that nothing leaves the gateway but to the LAN.
func (w *world) closed(when string) {
	w.t.Helper()
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6, lab.HomeWebV4} {
			if s, err := from.Visit(w.context(300*time.Millisecond), port443(to)); err == nil {
				w.t.Errorf("%s: %s reached %s: %s", when, from.Name, to, way(s))
			}
		}
	}
	if _, err := w.Client.Connect(w.context(5*time.Second), netip.AddrPortFrom(lab.LANV4, lab.InboundPort)); err != nil {
		w.t.Errorf("%s: the LAN: %v", when, err)
	}
	w.noLeaks()
}

// The kill switch closes before there is a daemon, is taken over by it without a
// gap, and stays closed over a stop, a crash, a flushed table and configurations
// that are broken, empty or no longer say it; down alone opens it, and leaves the
// host as it was (SECURITY 6.4; L-01, L-08, L-09, L-12, F-30).
func TestKillSwitch(t *testing.T) {
	w := newWorld(t)
	w.config = strictly(w.config)
	before := w.dump()
	gateway := w.Gateway.Namespace
	old, err := gateway.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if w.Sniffer.Leaks() == 0 {
		t.Fatal("the sniffer is blind") // L-01
	}
	w.Sniffer.Reset()

	lockdown := func(config string) (string, error) {
		if err := w.Gateway.WriteConfig(config); err != nil {
			t.Fatal(err)
		}
		return w.cli("lockdown", "--from-config")
	}
	if out, err := lockdown(w.config + "strict = maybe\n"); err == nil || !strings.Contains(err.Error(), "the kill switch was closed without it") {
		t.Errorf("lockdown with a broken configuration: %v\n%s", err, out)
	}
	w.closed("locked down, without a configuration")
	if out, err := w.cli("down"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	w.equal("after down", w.dump(), before)
	if out, err := lockdown(strings.Replace(w.config, "strict = true", "strict = false", 1)); err != nil || out != "" {
		t.Errorf("lockdown where strict is false: %v\n%s", err, out)
	}
	w.equal("after no lockdown", w.dump(), before)
	if out, err := lockdown(w.config); err != nil || !strings.Contains(out, "unreachable") || !strings.Contains(out, "chain inet smartdns strict") {
		t.Errorf("lockdown: %v\n%s", err, out)
	}
	w.closed("locked down")
	if err := old.Say(w.context(time.Second), "still here"); err == nil {
		t.Error("a session of before goes on")
	}
	w.noLeaks()

	w.start()
	w.waitUp()
	tr := w.traffic()
	for i := range 3 {
		begun := time.Now()
		if i < 2 {
			w.stop()
		} else if err := w.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			w.closed("stopped")
			if err := w.Gateway.FlushRuleset(); err != nil {
				t.Fatal(err)
			}
			w.closed("stopped and flushed")
			for what, config := range map[string]string{
				"broken": w.config + "strict = maybe\n", "empty": "", "lax": strings.Replace(w.config, "strict = true", "strict = false", 1),
			} {
				if err := w.Gateway.WriteConfig(config); err != nil {
					t.Fatal(err)
				}
				out, err := w.cli("run")
				if err == nil || !strings.Contains(err.Error(), "kill switch") {
					t.Errorf("a start with a configuration that is %s: %v\n%s", what, err, out)
				}
			}
			if out, err := w.cli("cleanup"); err == nil || !strings.Contains(err.Error(), "only `smartdns down` opens it") {
				t.Errorf("cleanup: %v\n%s", err, out)
			}
			w.closed("after starts that failed")
		}
		w.start()
		w.waitUp()
		tr.works(fmt.Sprintf("after start %d", i), 10*time.Second)
		t.Logf("stop and start: %s", time.Since(begun).Round(time.Millisecond))
		w.noLeaks()
	}
	if err := w.Gateway.WriteConfig(strings.Replace(w.config, "strict = true", "strict = false", 1)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.cli("reload"); err == nil || !strings.Contains(err.Error(), "only `smartdns down` opens it") {
		t.Errorf("a reload that would open it: %v\n%s", err, out)
	}
	tr.stop()
	w.noLeaks()
	if out, err := w.cli("down"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	w.equal("after down", w.dump(), before)
}
