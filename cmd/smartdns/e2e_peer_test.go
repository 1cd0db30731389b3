package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab"
	"smartdns/web/api"
)

// exitWorld is a lab whose far end's host is an exit made by us, with an office
// behind it, and whose gateway has the file that peer add wrote.
type exitWorld struct {
	*world
	office *lab.Namespace
	file   string // the exit's, in its /etc
}

// exit runs a command of smartdns on the exit.
func (w *exitWorld) exit(args ...string) (string, error) {
	return w.FarEnd.Exec(w.context(20*time.Second), w.exe, append(args, "-v", "--state-dir", filepath.Join(w.Dir, "exit"))...)
}

// exitDump is what can be seen of the exit's kernel.
func (w *exitWorld) exitDump() string {
	w.t.Helper()
	s, err := w.FarEnd.Dump(w.context(20 * time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *exitWorld) runExit() *lab.Process {
	w.t.Helper()
	p, err := w.StartOn(w.context(20*time.Second), w.FarEnd.Namespace, w.exe, "peer", "run", w.file, "--lan", lab.OfficeLink)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("the exit's log:\n%s", p.Log())
		}
	})
	return p
}

func (w *exitWorld) peers() []api.FarClient {
	w.t.Helper()
	out, err := w.FarEnd.Exec(w.context(20*time.Second), w.exe, "peer", "list", "--json")
	var v api.FarEnds
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || len(v.FarEnds) != 1 {
		w.t.Fatalf("peer list: %v\n%s", err, out)
	}
	return v.FarEnds[0].Clients
}

func newExitWorld(t *testing.T) *exitWorld {
	t.Helper()
	w := &exitWorld{world: newWorld(t), file: "/etc/wireguard/exit0.conf"}
	var err error
	if w.office, err = w.AddOffice(w.context(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := w.FarEnd.SetForwarding(false); err != nil {
		t.Fatal(err)
	}
	setup := fmt.Sprintf("install -d /etc/wireguard && umask 077 && printf '# the exit\\n[Interface]\\nPrivateKey = %%s\\nAddress = 10.77.0.1/24, fd77::1/64\\nListenPort = 51820\\n' $(%s genkey) > %s", w.exe, w.file)
	if out, err := w.FarEnd.Exec(w.context(10*time.Second), "bash", "-c", setup); err != nil {
		t.Fatal(err, out)
	}
	return w
}

// An exit is made of a wg-quick file, and its client is a gateway with the file
// that peer add wrote: traffic goes out with the exit's addresses, the networks
// behind both ends reach each other with their own, the exit's neighbours are not
// reached, clients come and go without touching the others, what somebody
// flushes is put back, and nothing is left in the end, killed or not.
func TestFarEnd(t *testing.T) {
	w := newExitWorld(t)
	before := w.exitDump()
	if out, err := w.exit("peer", "up", w.file); err == nil || !strings.Contains(err.Error(), "smartdns peer run "+w.file) {
		t.Errorf("peer up without the kernel's WireGuard: %q, %v", out, err)
	}
	w.equal("after peer up was refused", w.exitDump(), before)

	client := w.Gateway.WireGuardFile()
	add := []string{"peer", "add", "home", w.file, "--endpoint", lab.Endpoint.Addr().String(), "--lan", "192.168.8.0/24,fd00:8::/64",
		"--allowed-ips", "0.0.0.0/0,::/0,10.20.0.0/24,fd20::/64", "--out", client}
	if out, err := w.exit(add...); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("peer add over a file: %q, %v", out, err)
	}
	if err := os.Remove(client); err != nil {
		t.Fatal(err)
	}
	if out, err := w.exit(add...); err != nil || !strings.Contains(out, "▀") {
		t.Fatal(err, out)
	}
	exit := w.runExit()
	w.config = inTable(w.config, "[tunnel.wg0]", "inbound = \"allow\"\ntranslate = \"public\"")
	w.start()
	w.waitUp()

	hosting := map[bool]netip.Addr{true: lab.Endpoint.Addr(), false: netip.MustParseAddr("2001:19f0:1::2")}
	leaves := func(to netip.Addr) error {
		for _, ask := range []func() (lab.Seen, error){
			func() (lab.Seen, error) { return w.Client.Visit(w.context(5*time.Second), port443(to)) },
			func() (lab.Seen, error) { return w.Client.Datagram(w.context(5*time.Second), port443(to)) },
			func() (lab.Seen, error) { return w.Gateway.Visit(w.context(5*time.Second), port443(to)) },
		} {
			if s, err := ask(); err != nil || s.Peer.Addr() != hosting[to.Is4()] {
				return fmt.Errorf("to %s: seen as %v, %w", to, s.Peer, err)
			}
		}
		return nil
	}
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
		if err := leaves(to); err != nil {
			t.Error(err)
		}
	}
	at := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, lab.InboundPort) }
	for _, c := range []struct {
		from     *lab.Namespace
		to, seen netip.Addr
	}{
		{w.Client, lab.OfficeV4, lab.ClientV4}, {w.Client, lab.OfficeV6, lab.ClientV6},
		{w.office, lab.ClientV4, lab.OfficeV4}, {w.office, lab.ClientV6, lab.OfficeV6},
	} {
		s, err := c.from.Visit(w.context(5*time.Second), at(c.to))
		if err != nil || s.Peer.Addr() != c.seen {
			t.Errorf("from %s to %s: seen as %v, %v", c.from.Name, c.to, s.Peer, err)
		}
	}

	// A client more, and a ruleset flushed, while a session goes on.
	session, err := w.Client.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	handshake := w.peers()[0].Handshake
	phone := filepath.Join(w.Dir, "phone.conf")
	if out, err := w.exit("peer", "add", "phone", "exit0", "--endpoint", "exit.example.com:443", "--out", phone); err != nil {
		t.Fatal(err, out)
	}
	if now := w.peers(); len(now) != 2 || now[1].Name != "phone" || now[0].Handshake == nil || !now[0].Handshake.Equal(*handshake) {
		t.Errorf("after peer add: %+v", now)
	}
	if out, err := w.FarEnd.Exec(w.context(5*time.Second), "wg", "show", "exit0", "allowed-ips"); err != nil || !strings.Contains(out, "10.77.0.3/32 fd77::3/128") {
		t.Error(out, err)
	}
	if err := session.Say(w.context(5*time.Second), "still there"); err != nil {
		t.Error(err)
	}
	if out, err := w.FarEnd.Exec(w.context(5*time.Second), "nft", "flush", "ruleset"); err != nil {
		t.Fatal(out, err)
	}
	w.waitFor("the exit has its table again", 20*time.Second, func() error { return leaves(lab.AbroadWebV4) })
	if out, err := w.exit("peer", "remove", "phone"); err != nil || len(w.peers()) != 1 {
		t.Error(out, err)
	}
	w.noLeaks()

	if err := exit.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exit.Done()
	w.stop()
	for range 2 { // the second has nothing to do
		if out, err := w.exit("peer", "down", "exit0"); err != nil {
			t.Error(out, err)
		}
		w.equal("after peer down of what was killed", w.exitDump(), before)
	}
	again := w.runExit()
	if out, err := w.exit("cleanup"); err == nil || !strings.Contains(err.Error(), "smartdns peer down exit0") {
		t.Errorf("cleanup under a running far end: %q, %v", out, err)
	}
	if out, err := w.exit("peer", "down"); err != nil {
		t.Error(out, err)
	}
	<-again.Done()
	if again.ExitCode() != 0 {
		t.Errorf("exit code %d", again.ExitCode())
	}
	w.equal("after peer down", w.exitDump(), before)
}
