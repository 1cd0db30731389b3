package hostdns_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/routing/hostdns"
)

const (
	etcConf   = "/etc/resolv.conf"
	stubConf  = "/run/systemd/resolve/stub-resolv.conf"
	aliveTime = 30 * time.Second // for a program to come up, on a busy machine
)

// provider is the DNS server of the network that the host is in.
var provider = netip.MustParseAddr("192.0.2.53")

// unpacked returns a file of the programs that .ci/resolvers unpacks, or the
// installed one.
func unpacked(t *testing.T, path string) string {
	t.Helper()
	dir := os.Getenv("SMARTDNS_RESOLVERS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		must(t, err)
		dir = filepath.Join(cache, "smartdns-resolvers")
	}
	for _, p := range []string{filepath.Join(dir, path), path} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Skipf("SKIPPED: %s is neither installed nor unpacked in %s (.ci/resolvers does that)", path, dir)
	return ""
}

// machine is a host of the test's own: its /etc and /run are empty but for what
// programs need, it has a bus, and there are two links: uplink, and t0 for a
// tunnel.
type machine struct {
	t   *testing.T
	bus string
	// asked has who was asked: "us" or "provider".
	asked chan string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	netnstest.Require(t, "dbus-daemon", "ip")
	m := &machine{t: t, asked: make(chan string, 64)}
	m.makeEtc()
	for _, d := range []string{"/run/dbus", "/run/systemd"} {
		must(t, os.MkdirAll(d, 0o755))
		t.Cleanup(func() { os.RemoveAll(d) })
	}
	m.ip("link add uplink type veth peer name uplink.far")
	m.ip("link add t0 type veth peer name t0.far")
	t.Cleanup(func() { m.ip("link del uplink"); m.ip("link del t0"); m.ip("addr del 192.0.2.53/32 dev lo") })
	m.ip("addr add 192.0.2.53/32 dev lo")
	m.ip("addr add 198.51.100.2/24 dev uplink")
	m.ip("addr add 10.9.0.1/24 dev t0")
	for _, l := range []string{"uplink", "uplink.far", "t0", "t0.far"} {
		m.ip("link set " + l + " up")
	}
	m.startBus()
	return m
}

func (m *machine) serveBoth() {
	m.t.Helper()
	m.serve("us", loopback4)
	m.serve("provider", provider)
}

// makeEtc mounts an /etc of our own.
func (m *machine) makeEtc() {
	m.t.Helper()
	have := map[string][]byte{}
	for _, name := range []string{"passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf"} {
		have[name], _ = os.ReadFile("/etc/" + name) // what is not there is not needed
	}
	have["passwd"] = append(have["passwd"], "systemd-resolve:x:0:0::/:/usr/sbin/nologin\n"...)
	have["group"] = append(have["group"], "systemd-resolve:x:0:\n"...)
	must(m.t, unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755"))
	m.t.Cleanup(func() { unix.Unmount("/etc", unix.MNT_DETACH) })
	for name, data := range have {
		must(m.t, os.WriteFile("/etc/"+name, data, 0o644))
	}
}

func (m *machine) ip(args string) {
	m.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		m.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// serve answers every question at addr.
func (m *machine) serve(who string, addr netip.Addr) {
	m.t.Helper()
	started := make(chan struct{})
	s := &dns.Server{Addr: netip.AddrPortFrom(addr, 53).String(), Net: "udp", NotifyStartedFunc: func() { close(started) }}
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasSuffix(q.Question[0].Name, ".test.") {
			m.asked <- who
		}
		r := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: []byte{203, 0, 113, 1}}}
		}
		_ = w.WriteMsg(r)
	})
	failed := make(chan error, 1)
	go func() { failed <- s.ListenAndServe() }()
	select {
	case <-started:
	case err := <-failed:
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { s.Shutdown() })
}

// startBus starts a system bus on which everybody may do everything.
func (m *machine) startBus() {
	m.t.Helper()
	dir := m.t.TempDir()
	m.bus = "unix:path=" + dir + "/bus"
	must(m.t, os.WriteFile(dir+"/bus.conf", []byte(`<busconfig><type>system</type><listen>`+m.bus+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
<allow send_type="signal"/><allow receive_type="signal"/></policy></busconfig>`), 0o644))
	_, out := m.start("dbus-daemon", nil, "--config-file="+dir+"/bus.conf", "--nofork", "--print-address=1")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil { // written when it listens
		m.t.Fatalf("dbus-daemon says %q (%v)", line, err)
	}
}

// start runs a program until the test, or kill, ends it, and returns what it
// writes.
func (m *machine) start(program string, env []string, args ...string) (*exec.Cmd, io.Reader) {
	m.t.Helper()
	c := exec.Command(program, args...)
	c.Env = append(append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+m.bus), env...)
	var log bytes.Buffer
	c.Stderr = &log
	out, err := c.StdoutPipe()
	must(m.t, err)
	must(m.t, c.Start())
	m.t.Cleanup(func() {
		kill(c)
		if m.t.Failed() {
			m.t.Logf("%s said:\n%s", filepath.Base(program), &log)
		}
	})
	return c, out
}

func kill(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// connect returns a connection of another program's.
func (m *machine) connect() *dbus.Conn {
	m.t.Helper()
	conn, err := dbus.Connect(m.bus)
	must(m.t, err)
	m.t.Cleanup(func() { conn.Close() })
	return conn
}

// up starts a program and waits until it has its name on the bus.
func (m *machine) up(name, program string, env []string, args ...string) *exec.Cmd {
	m.t.Helper()
	conn := m.connect()
	heard := make(chan *dbus.Signal, 16)
	conn.Signal(heard)
	must(m.t, conn.AddMatchSignal(dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)))
	c, _ := m.start(program, env, args...)
	late := time.After(aliveTime)
	for {
		select {
		case s := <-heard:
			if len(s.Body) == 3 && s.Body[0] == name && s.Body[2] != "" {
				return c
			}
		case <-late:
			m.t.Fatalf("%s is not on the bus", program)
		}
	}
}

// host is the one under test, with what its Changed is told.
func (m *machine) host(link string) (*hostdns.Host, chan error, place) {
	p := place{path: etcConf, saved: filepath.Join(m.t.TempDir(), "saved")}
	changed := make(chan error, 16)
	return hostdns.New(m.options(p, link, changed)), changed, p
}

func (m *machine) options(p place, link string, changed chan error) hostdns.Options {
	return hostdns.Options{
		Path: p.path, Saved: p.saved, Servers: []netip.Addr{loopback4}, Link: link, Bus: m.bus, Logger: testLog(m.t),
		Changed: func(err error) { changed <- err },
	}
}

// goesTo asks server for a new name, and checks who is asked in the end.
func (m *machine) goesTo(server, want string) {
	m.t.Helper()
	for len(m.asked) > 0 {
		<-m.asked
	}
	q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.test.", time.Now().UnixNano()), dns.TypeA)
	c := dns.Client{Timeout: aliveTime}
	r, _, err := c.Exchange(q, server+":53")
	if err != nil || len(r.Answer) != 1 {
		m.t.Fatalf("asking %s: %v, %v", server, r, err)
	}
	if got := <-m.asked; got != want {
		m.t.Errorf("%s asks %s, want %s", server, got, want)
	}
}

func (m *machine) expectLook(by string, asks bool) {
	m.t.Helper()
	if v := hostdns.Look(context.Background(), etcConf, m.bus, loopback4); v.By != by || v.Asks != asks {
		m.t.Errorf("Look says %+v, want %q %t", v, by, asks)
	}
}
