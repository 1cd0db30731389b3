package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"smartdns/lab"
	"smartdns/web/api"
)

// badInput is something that a start must refuse.
type badInput struct {
	name string
	// spoil makes it so. What it leaves on the gateway it removes with the
	// test's Cleanup.
	spoil func(t *testing.T, w *world, dir string)
	want  []string // parts of the sentence
	more  int      // lines that stand below it: other mistakes
	files bool     // check sees it too
	sudo  []string // what runs the program, instead of nothing
}

// useList adds a list file to the configuration, and uses it.
func useList(w *world, dir, text, match string) {
	w.t.Helper()
	path := filepath.Join(dir, "list.txt")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	w.config += "\n[list.mine]\nfile = \"" + path + "\"\n"
	w.config = strings.Replace(w.config, match+" = [\n", match+" = [\n  { match = \"list:mine\", "+map[string]string{
		"names": `ask = "domestic"`, "addresses": `via = "direct"`,
	}[match]+" },\n", 1)
}

func (w *world) writeTunnel(change func(string) string) {
	w.t.Helper()
	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(change(string(text))), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// database is a small MaxMind database.
func database(t *testing.T) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-Country", RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	home := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("CN")}}
	if err := tree.Insert(&net.IPNet{IP: net.IPv4(39, 156, 0, 0), Mask: net.CIDRMask(16, 32)}, home); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func replaced(old, with string) func(*testing.T, *world, string) {
	return func(_ *testing.T, w *world, _ string) { w.config = strings.Replace(w.config, old, with, 1) }
}

func inTunnel(old, with string) func(*testing.T, *world, string) {
	return func(_ *testing.T, w *world, _ string) {
		w.writeTunnel(func(s string) string { return strings.Replace(s, old, with, 1) })
	}
}

// badInputs are the ways in which a start can go wrong (SECURITY F-30, F-35,
// F-36, W-08).
func badInputs() []badInput {
	return []badInput{
		{name: "a key that is not there", files: true, spoil: replaced("lan = [", "lna = ["), want: []string{"smartdns.toml:3: [listen] lna: ", "lan"}},
		{name: "a value of another type", files: true, spoil: replaced("[decide]\n", "[decide]\nhome = 86\n"), want: []string{"smartdns.toml:17: [decide] home: "}},
		{name: "half a line", files: true, spoil: replaced(`servers = ["8.8.8.8", `, `servers = ["8.8.8.8, `), want: []string{"smartdns.toml:13"}},
		{name: "a tunnel that is not there", files: true, spoil: replaced(`via     = "wg0"`, `via     = "wg1"`), want: []string{"smartdns.toml:14: [side.foreign] via: ", `"wg1"`, "wg0"}},
		{name: "no last line", files: true, spoil: replaced("  { match = \"*\",                 via = \"wg0\" },\n", ""), want: []string{"smartdns.toml:22", "addresses", `"*"`}},
		{name: "a list that is not there", files: true, spoil: func(_ *testing.T, w *world, dir string) { useList(w, dir, "", "names") }, want: []string{"[list.mine]", "list.txt: no such file or directory"}},
		{name: "an HTML page for a list", files: true, spoil: func(_ *testing.T, w *world, dir string) {
			useList(w, dir, "<!DOCTYPE html>\n<html><head><title>502</title></head>\n<body>Bad Gateway</body></html>\n", "names")
		}, want: []string{"[list.mine]", "list.txt", "HTML"}},
		{name: "a list of prefixes for names", files: true, spoil: func(_ *testing.T, w *world, dir string) { useList(w, dir, "192.0.2.0/24\n198.51.100.0/24\n", "names") }, want: []string{"[list.mine]", "list.txt", "prefixes", "names"}},
		{name: "a list of names for prefixes", files: true, spoil: func(_ *testing.T, w *world, dir string) { useList(w, dir, "example.com\nexample.org\n", "addresses") }, want: []string{"[list.mine]", "list.txt", "names", "prefixes"}},
		{name: "garbage for a list", files: true, spoil: func(_ *testing.T, w *world, dir string) {
			useList(w, dir, strings.Repeat("\x00\x1b[2J\xff garbage\n", 50), "names")
		}, want: []string{"[list.mine]", "list.txt"}},
		{name: "a broken database", files: true, spoil: func(t *testing.T, w *world, dir string) {
			path := filepath.Join(dir, "broken.mmdb")
			db := database(t)
			if err := os.WriteFile(path, db[:len(db)-20], 0o644); err != nil { // half a download
				t.Fatal(err)
			}
			w.config += "\n[geo]\nsources = [\"list:mine\", \"embedded\"]\n[list.mine]\nfile = \"" + path + "\"\n"
		}, want: []string{"[list.mine]", "broken.mmdb"}},
		{name: "no wg0.conf", files: true, spoil: func(t *testing.T, w *world, dir string) {
			w.config = strings.Replace(w.config, w.Gateway.WireGuardFile(), filepath.Join(dir, "none.conf"), 1)
		}, want: []string{"[tunnel.wg0]", "none.conf: no such file or directory"}},
		{name: "wg0.conf open to all", files: true, spoil: func(t *testing.T, w *world, dir string) {
			if err := os.Chmod(w.Gateway.WireGuardFile(), 0o644); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"[tunnel.wg0]", "wg0.conf", "chmod 600"}},
		{name: "half a key", files: true, spoil: inTunnel("PrivateKey = ", "PrivateKey = x"), want: []string{"wg0.conf:2: [Interface] PrivateKey: "}},
		{name: "a table that is none", files: true, spoil: inTunnel("DNS = ", "Table = never\nDNS = "), want: []string{"wg0.conf:4: [Interface] Table: ", "off"}},
		{name: "a page for wg0.conf", files: true, spoil: func(_ *testing.T, w *world, _ string) {
			w.writeTunnel(func(string) string { return "<!DOCTYPE html>\n<html></html>\n" })
		}, want: []string{"[tunnel.wg0]", "wg0.conf: has no [Interface]: is it a wg-quick file?"}, more: 2},
		{name: "somebody on port 53 over UDP", spoil: func(t *testing.T, w *world, _ string) { w.occupy(t, "udp") }, want: []string{"127.0.0.1:53", "has it", fmt.Sprintf("(pid %d)", os.Getpid())}},
		{name: "somebody on port 53 over TCP", spoil: func(t *testing.T, w *world, _ string) { w.occupy(t, "tcp") }, want: []string{"127.0.0.1:53", "has it", fmt.Sprintf("(pid %d)", os.Getpid())}},
		{name: "a link of somebody else's", spoil: func(t *testing.T, w *world, _ string) {
			w.inGateway("ip link add wg0 type bridge")
			t.Cleanup(func() { w.inGateway("ip link del wg0") })
		}, want: []string{"tunnel wg0", "not WireGuard's"}},
		{name: "without CAP_NET_ADMIN", sudo: []string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all"}, want: []string{"CAP_NET_ADMIN"}},
		{name: "without any right", sudo: []string{"setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"}, want: []string{"permission denied"}},
	}
}

// occupy holds port 53 of 127.0.0.1 on the gateway, until the test ends.
func (w *world) occupy(t *testing.T, network string) {
	t.Helper()
	err := w.Gateway.Do(func() error {
		var l interface{ Close() error }
		var err error
		if network == "udp" {
			l, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:53")))
		} else {
			l, err = net.Listen(network, "127.0.0.1:53")
		}
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Bad input is one clear sentence and exit code 1; the kernel, resolv.conf and
// our directories are as before (SECURITY F-30, F-35, F-36, W-08).
func TestBadInputIsOneSentence(t *testing.T) {
	w := newWorld(t)
	config := w.config
	tunnel, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range badInputs() {
		t.Run(c.name, func(t *testing.T) {
			if c.sudo != nil && os.Getuid() != 0 {
				t.Skip("SKIPPED: only root can give up rights")
			}
			if c.sudo != nil {
				if _, err := exec.LookPath(c.sudo[0]); err != nil {
					t.Skip("SKIPPED: " + err.Error())
				}
			}
			w.config = config
			if err := os.WriteFile(w.Gateway.WireGuardFile(), tunnel, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(w.Gateway.WireGuardFile(), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(t, w, t.TempDir())
			}
			before := w.dump()
			log, code := w.runs(c.sudo)
			sentence(t, log, c)
			if code != exitNo {
				t.Errorf("exit code %d, want %d", code, exitNo)
			}
			w.equal(c.name, w.dump(), before)
			if out, err := w.Gateway.Exec(w.context(5*time.Second), "find", w.Gateway.RunDir(), "-type", "s,f", "-not", "-name", "lock"); err == nil && out != "" {
				t.Errorf("left in the run directory: %s", out)
			}
			if !c.files {
				return
			}
			out, err := w.cli("check")
			if exitCode(err) != exitNo || out != "" {
				t.Errorf("check: %v\n%s", err, out)
			}
			for _, part := range c.want {
				if !strings.Contains(fmt.Sprint(err), part) {
					t.Errorf("check does not say %q: %v", part, err)
				}
			}
		})
	}
}

// runs starts the daemon by way of sudo, and returns what it wrote and its exit
// code. It must end by itself.
func (w *world) runs(sudo []string) (log string, code int) {
	w.t.Helper()
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		w.t.Fatal(err)
	}
	args := append(append([]string{}, sudo...), w.exe, "run", "-c", w.Gateway.ConfigFile(), "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())
	p, err := w.Gateway.Launch(args[0], args[1:]...)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-p.Done():
	case <-ctx.Done():
		w.t.Errorf("it goes on:\n%s", p.Log())
		_ = p.Kill()
	}
	return p.Log(), p.ExitCode()
}

// sentence fails unless one line of a log is the reason why the program ended,
// and says all that it should.
func sentence(t *testing.T, log string, c badInput) {
	t.Helper()
	var reasons []string
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "level=") {
			reasons = append(reasons, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(reasons) != 1+c.more || !strings.HasPrefix(reasons[0], "smartdns: ") || safe(reasons[0]) != reasons[0] {
		t.Errorf("want one sentence:\n%s", log)
		return
	}
	t.Log(reasons[0])
	for _, part := range c.want {
		if !strings.Contains(reasons[0], part) {
			t.Errorf("does not say %q: %s", part, reasons[0])
		}
	}
}

// A second daemon in the same network namespace names the first one's pid, with
// whatever directories; the first goes on.
func TestSecondInstance(t *testing.T) {
	w := started(t)
	for _, dir := range []string{w.Gateway.RunDir(), "/run/other"} {
		out, err := w.Gateway.Exec(w.context(10*time.Second), w.exe, "run", "-c", w.Gateway.ConfigFile(), "--run-dir", dir, "--state-dir", w.Gateway.StateDir())
		if exitCode(err) != exitNo || out != "" || !strings.Contains(err.Error(), fmt.Sprintf("smartdns runs already in this network namespace (pid %d)", w.daemon.Pid())) {
			t.Errorf("a second one with --run-dir %s: %v\n%s", dir, err, out)
		}
	}
	w.says(0, "status")
	if a := w.resolve("www.example.com", 0); !lab.IsAbroad(a) {
		t.Errorf("the first one answers %s", a)
	}
}

// Directories that cannot be written to are refused before anything is set up
// (SECURITY F-28).
func TestUnwritableDirectories(t *testing.T) {
	w := newWorld(t)
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := w.dump()
	for _, c := range []struct{ run, state, want string }{
		{w.Gateway.RunDir(), file + "/state", "making the state directory: "},
		{file + "/run", w.Gateway.StateDir(), "making the run directory: "},
		{w.Gateway.RunDir(), "/proc/self/state", "making the state directory: "},
	} {
		out, err := w.Gateway.Exec(w.context(10*time.Second), w.exe, "run", "-c", w.Gateway.ConfigFile(), "--run-dir", c.run, "--state-dir", c.state)
		if exitCode(err) != exitNo || out != "" || !strings.Contains(err.Error(), "smartdns: "+c.want) {
			t.Errorf("%+v: %v\n%s", c, err, out)
		}
	}
	w.equal("after the refusals", w.dump(), before)
}

// With no upstream in reach the daemon runs; a query is SERVFAIL, for clients
// with an extended error, and smartdns query says of each server why (SECURITY
// F-03).
func TestUnreachableUpstreams(t *testing.T) {
	w := newWorld(t)
	// Nobody listens on these; the second one refuses, the first is silent.
	w.config = strings.NewReplacer(`"8.8.8.8", "1.1.1.1"`, `"tls://45.76.1.77", "93.184.7.7"`, `"223.5.5.5", "119.29.29.29"`, `"39.156.7.7"`).Replace(w.config)
	w.start()
	w.waitUp()
	m := w.ask("n1.foreign.test", lab.Question{})
	if m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 {
		t.Errorf("a client gets %s", dns.RcodeToString[m.Rcode])
	}
	var ede *dns.EDNS0_EDE
	for _, o := range m.IsEdns0().Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			ede = e
		}
	}
	if ede == nil || ede.InfoCode != dns.ExtendedErrorCodeNoReachableAuthority || !strings.Contains(ede.ExtraText, "93.184.7.7") {
		t.Errorf("the extended error: %v", ede)
	}
	out := w.says(exitNo, "query", "n2.foreign.test")
	inOrder(t, "query", out, "SERVFAIL", "asked foreign", "via wg0", "because", "93.184.7.7: ", "connection refused", "EDE 22")
	if !strings.Contains(out, "tls://45.76.1.77") {
		t.Errorf("one of the servers is not named:\n%s", out)
	}
	inOrder(t, "query at home", w.says(exitNo, "query", "www.baidu.com"), "SERVFAIL", "asked domestic 39.156.7.7", "because", "39.156.7.7", "EDE 22")
	out = w.says(exitNo, "status")
	inOrder(t, "status", out, "not fine: no server of the", "side answers", "93.184.7.7", "down", "connection refused")
	var s api.Status
	decode(t, w.says(exitNo, "status", "--json"), &s)
	w.stop()
}
