package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// A restart in place loses no query: 1,000 a second by UDP and some by TCP, each
// with one retry. The cache is kept, the process number stays, flows at home do
// not notice, those of the tunnel go on, and nothing leaks. What does not work
// changes nothing (SECURITY C-07, C-08).
func TestRestartInPlaceLosesNothing(t *testing.T) {
	rounds := sized(3, 20)
	w := newWorld(t)
	program := w.startBy("smartdns")
	w.waitUp()
	pid := w.daemon.Pid()
	warm := lab.Numbered("cn", warmNames)
	for _, name := range warm {
		w.resolve(name, 0)
	}
	asked := func() (n int) {
		for _, a := range w.DNS.Asked("") {
			if slices.ContainsFunc(warm, func(name string) bool { return strings.EqualFold(a.Name, dns.Fqdn(name)) }) {
				n++
			}
		}
		return n
	}
	before := asked()
	tr := w.traffic()
	begun := time.Now()
	abroad := w.talk(lab.AbroadWebV4, lab.AbroadWebV6)
	link := w.link("wg0")
	flood := w.flood(1000)
	for i := range rounds {
		out, err := w.cli("restart")
		if err != nil || !strings.HasPrefix(out, "restarted: smartdns ") {
			t.Fatalf("restart %d: %v\n%s", i, err, out)
		}
		if err := w.heldBy(pid); err != nil {
			t.Fatalf("restart %d: %v", i, err)
		}
		w.waitFor("READY=1 has come", 10*time.Second, func() error {
			if n := w.readies(); n != i+2 {
				return fmt.Errorf("it has come %d times", n)
			}
			return nil
		})
		w.refusesToRestart(program, i)
	}
	// Two at once are both answered.
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, err := w.cli("restart"); err != nil {
				t.Errorf("one of two restarts: %v\n%s", err, out)
			}
		})
	}
	both.Wait()
	w.waitUp()
	flood.end()
	tr.works("after the restarts", 6*time.Second)
	tr.unharmed(begun, "the restarts", func(p *probe) bool { return atHome(p) && !strings.Contains(p.name, "asks") })
	away := abroad()
	if now := w.link("wg0"); now != link {
		t.Errorf("wg0 was made again: it was link %s and is %s", link, now)
	}
	tr.stop()
	w.noLeaks()
	if n := asked() - before; n > warmNames/10*(rounds+2) {
		t.Errorf("the servers were asked %d times for %d names that were cached, in %d restarts", n, warmNames, rounds+2)
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	waited := took(w.daemon.Log())
	t.Logf("%d restarts, %s; asked again for cached names: %d; queries waited %s; a line through the tunnel took up to %s", len(waited), flood, asked()-before, waited, away.Round(time.Millisecond))
}

// A restart in place never opens the kill switch: nothing leaks meanwhile, and a
// file that would open it is refused. Sockets that the file does not want any more
// are closed, and the commands of a tunnel that goes on are not run again.
func TestRestartInPlaceUnderTheKillSwitch(t *testing.T) {
	w := newWorld(t)
	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	hooked := strings.Replace(string(text), "[Interface]\n", fmt.Sprintf("[Interface]\nPreUp = echo pre >> %[1]s\nPostUp = echo post >> %[1]s\n", ran), 1)
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(hooked), 0o600); err != nil {
		t.Fatal(err)
	}
	w.config = strictly(inTable(w.config, "[tunnel.wg0]", "hooks = true"))
	w.start()
	w.waitUp()
	tr := w.traffic()
	begun := time.Now()
	w.restartRefuses(strings.Replace(w.config, "strict = true", "strict = false", 1), "the kill switch is closed")
	w.config = strings.Replace(w.config, `dns = ["127.0.0.1:53", `, `dns = ["127.0.0.1:54", `, 1)
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		t.Fatal(err)
	}
	if out, err := w.cli("restart"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.waitUp()
	tr.works("after the restart", 6*time.Second)
	tr.unharmed(begun, "the restart", func(p *probe) bool { return atHome(p) && !strings.Contains(p.name, "asks") })
	tr.stop()
	w.noLeaks()
	if s := w.status(); s.KillSwitch.State != "secured" {
		t.Errorf("the kill switch is %s", s.KillSwitch.State)
	}
	if b, err := os.ReadFile(ran); err != nil || string(b) != "pre\npost\n" {
		t.Errorf("hooks that ran: %v %q, want each once", err, b)
	}
	for at, want := range map[string]bool{"127.0.0.1:53": false, "127.0.0.1:54": true} {
		for _, network := range []string{"udp", "tcp"} {
			_, err := w.Gateway.Ask(w.context(10*time.Second), lab.Question{At: netip.MustParseAddrPort(at), Net: network, Name: "n00001.cn.test"})
			if (err == nil) != want {
				t.Errorf("asking at %s by %s: %v", at, network, err)
			}
		}
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
}

// restartRefuses checks that a restart with a configuration is refused with these
// words, and changes nothing.
func (w *world) restartRefuses(config, says string) {
	w.t.Helper()
	if err := w.Gateway.WriteConfig(config); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.cli("restart"); err == nil || !strings.Contains(err.Error(), says) {
		w.t.Errorf("restart: %v, want %q", err, says)
	}
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		w.t.Fatal(err)
	}
}

// talk has the client talk without a pause in a session with each. It must not
// end before the call of slowest, which returns how long a line took at most.
func (w *world) talk(with ...netip.Addr) (slowest func() time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	var longest atomic.Int64
	for _, to := range with {
		s, err := w.Client.Connect(w.context(5*time.Second), port443(to))
		if err != nil {
			w.t.Fatal(err)
		}
		all.Go(func() {
			defer s.Close()
			for ctx.Err() == nil {
				begun := time.Now()
				limited, done := context.WithTimeout(w.t.Context(), 20*time.Second)
				err := s.Say(limited, "still here")
				done()
				if err != nil {
					w.t.Errorf("a session with %s ended: %v", to, err)
					return
				}
				raise(&longest, time.Since(begun))
			}
		})
	}
	slowest = func() time.Duration {
		cancel()
		all.Wait()
		return time.Duration(longest.Load())
	}
	w.t.Cleanup(func() { slowest() })
	return slowest
}

// raise makes n at least d.
func raise(n *atomic.Int64, d time.Duration) {
	for old := n.Load(); int64(d) > old && !n.CompareAndSwap(old, int64(d)); {
		old = n.Load()
	}
}

// link is the number of a link.
func (w *world) link(name string) string {
	w.t.Helper()
	out, err := w.run("ip", "-o", "link", "show", "dev", name)
	if err != nil {
		w.t.Fatal(err, out)
	}
	number, _, _ := strings.Cut(out, ":")
	return number
}

// took is how long queries waited, as the log says it.
func took(log string) (all []string) {
	for line := range strings.Lines(log) {
		if _, d, ok := strings.Cut(line, `"queries waited"=`); ok {
			all = append(all, strings.TrimSpace(d))
		}
	}
	return all
}

// startBy starts the daemon by a symbolic link of that name, which it returns.
func (w *world) startBy(name string) string {
	w.t.Helper()
	at := filepath.Join(w.t.TempDir(), name)
	if err := os.Symlink(w.exe, at); err != nil {
		w.t.Fatal(err)
	}
	exe := w.exe
	w.exe = at
	w.start()
	w.exe = exe
	return at
}

// heldBy is the error unless that process has the network namespace.
func (w *world) heldBy(pid int) error {
	_, err := w.cli("cleanup")
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", pid)) {
		return fmt.Errorf("cleanup says %v, want that process %d runs", err, pid)
	}
	return nil
}

// refusesToRestart checks one way in which the program or the file does not work.
func (w *world) refusesToRestart(program string, which int) {
	w.t.Helper()
	write := func(text string) func() error {
		return func() error {
			next := program + ".new"
			return errors.Join(os.WriteFile(next, []byte(text), 0o755), os.Rename(next, program))
		}
	}
	all := []struct {
		does func() error
		says string
	}{
		{write("#!/bin/sh\necho this is broken >&2\nexit 3\n"), "this is broken"},
		{func() error { return w.Gateway.WriteConfig(w.config + "\nnonsense = 1\n") }, "nonsense"},
		{func() error { return os.Remove(program) }, "no such file"},
		{write("no program"), "exec format error"},
		{func() error { return errors.Join(os.Remove(program), os.Mkdir(program, 0o755)) }, "permission denied"},
	}
	one := all[which%len(all)]
	if err := one.does(); err != nil {
		w.t.Fatal(err)
	}
	readies := w.readies()
	_, err := w.cli("restart")
	if err == nil || !strings.Contains(err.Error(), one.says) || !strings.Contains(err.Error(), "the daemon runs on as it was") || !strings.Contains(err.Error(), "exit status 1") {
		w.t.Errorf("a restart that cannot be: %v, want %q", err, one.says)
	}
	if w.readies() != readies {
		w.t.Errorf("a restart that cannot be: notices %q", w.daemon.Notices())
	}
	if err := errors.Join(os.RemoveAll(program), os.Symlink(w.exe, program), w.Gateway.WriteConfig(w.config)); err != nil {
		w.t.Fatal(err)
	}
}

// readies counts how often the daemon has said that it is ready.
func (w *world) readies() (n int) {
	for _, notice := range w.daemon.Notices() {
		if notice == "READY=1" {
			n++
		}
	}
	return n
}

const warmNames = 200

// flood is clients that ask at a steady pace, whether they are answered or not.
type flood struct {
	w      *world
	cancel context.CancelFunc
	all    sync.WaitGroup

	sent, again, tcp atomic.Int64
	slowest          atomic.Int64 // ns
}

func (f *flood) String() string {
	return fmt.Sprintf("%d queries by UDP, %d of them twice, the slowest answered after %s, and %d by TCP", f.sent.Load(), f.again.Load(), time.Duration(f.slowest.Load()).Round(time.Millisecond), f.tcp.Load())
}

// flood begins to ask for the warm names, and for fresh ones, rate times a second.
func (w *world) flood(rate int) *flood {
	ctx, cancel := context.WithCancel(w.t.Context())
	f := &flood{w: w, cancel: cancel}
	const clients = 10
	for client := range clients {
		f.all.Go(func() { f.overUDP(ctx, client, clients*time.Second/time.Duration(rate)) })
	}
	for client := range 4 {
		f.all.Go(func() { f.overTCP(ctx, clients+client) })
	}
	f.all.Go(func() { f.elsewhere(ctx) })
	w.t.Cleanup(f.end)
	return f
}

// end stops the clients, which then wait for what is under way. It may be called
// again.
func (f *flood) end() {
	f.cancel()
	f.all.Wait()
}

// name is the n-th that a client asks for: one of twenty is fresh.
func floodName(client, n int) string {
	number := 1 + (client*37+n)%warmNames
	if n%20 == 19 {
		number = 1000 + client*600 + n/20%600
	}
	return fmt.Sprintf("n%05d.cn.test.", number)
}

// overUDP asks at a pace, and at the end once more for what was not answered.
func (f *flood) overUDP(ctx context.Context, client int, every time.Duration) {
	c, err := f.w.Client.Dial(f.w.t.Context(), "udp", netip.AddrPort{}, netip.AddrPortFrom(gatewayDNS, 53))
	if err != nil {
		f.w.t.Error(err)
		return
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	var mu sync.Mutex // guards waiting
	waiting := map[uint16]time.Time{}
	names := map[uint16]string{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := conn.ReadMsg()
			if err != nil {
				return // the deadline
			}
			mu.Lock()
			if since, ok := waiting[m.Id]; ok && len(lab.Addresses(m)) == 1 {
				raise(&f.slowest, time.Since(since))
				delete(waiting, m.Id)
			}
			mu.Unlock()
		}
	}()
	ask := func(id uint16, name string) {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		q.Id = id
		mu.Lock()
		waiting[id] = time.Now()
		mu.Unlock()
		if err := conn.WriteMsg(q); err != nil {
			f.w.t.Errorf("a query of client %d: %v", client, err) // refused, say
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	id := uint16(0)
	for n := 0; ctx.Err() == nil && n < 1<<16-1; n++ {
		<-tick.C
		id++
		names[id] = floodName(client, n)
		ask(id, names[id])
		f.sent.Add(1)
	}
	left := func() (ids []uint16) {
		mu.Lock()
		defer mu.Unlock()
		for id := range waiting {
			ids = append(ids, id)
		}
		return ids
	}
	answered := func(limit time.Duration) {
		for begun := time.Now(); len(left()) > 0 && time.Since(begun) < limit; {
			<-tick.C
		}
	}
	answered(5 * time.Second)
	for _, id := range left() {
		f.again.Add(1)
		ask(id, names[id])
	}
	answered(20 * time.Second)
	for _, id := range left() {
		f.w.t.Errorf("client %d's query for %s is lost", client, names[id])
	}
	_ = c.SetReadDeadline(time.Now())
	<-done
}

// elsewhere asks a foreign server for names at home, each from a new port: we
// answer, and it never hears of them.
func (f *flood) elsewhere(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		ask := func(limit time.Duration) (*dns.Msg, error) {
			limited, done := context.WithTimeout(f.w.t.Context(), limit)
			defer done()
			return f.w.Client.Ask(limited, lab.Question{Server: netip.MustParseAddr("8.8.8.8"), Name: floodName(0, n)})
		}
		m, err := ask(5 * time.Second)
		if err != nil {
			m, err = ask(20 * time.Second)
		}
		if err != nil || len(lab.Addresses(m)) != 1 {
			f.w.t.Errorf("asking elsewhere: %v %v", m, err)
		}
	}
	for _, a := range f.w.DNS.Asked("") {
		if strings.HasSuffix(a.Name, ".cn.test.") && a.Server == netip.MustParseAddr("8.8.8.8") {
			f.w.t.Errorf("a question for %s was not redirected to us", a.Name)
			return
		}
	}
}

// overTCP asks over connections that it opens again when they end, each query at
// most twice.
func (f *flood) overTCP(ctx context.Context, client int) {
	var conn *dns.Conn
	ask := func(name string) error {
		if conn == nil {
			c, err := f.w.Client.Dial(f.w.t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(gatewayDNS, 53))
			if err != nil {
				return err
			}
			conn = &dns.Conn{Conn: c}
		}
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		err := errors.Join(conn.SetDeadline(time.Now().Add(10*time.Second)), conn.WriteMsg(q))
		if err != nil {
			return err
		}
		m, err := conn.ReadMsg()
		if err == nil && (m.Id != q.Id || len(lab.Addresses(m)) != 1) {
			err = fmt.Errorf("no address in %v", m)
		}
		return err
	}
	hangUp := func() {
		if conn != nil {
			conn.Close()
		}
		conn = nil
	}
	defer hangUp()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		<-tick.C
		f.tcp.Add(1)
		if n%10 == 0 { // connections come and go
			hangUp()
		}
		name := floodName(client, n)
		if ask(name) == nil {
			continue
		}
		hangUp()
		if err := ask(name); err != nil {
			f.w.t.Errorf("client %d's second query over TCP for %s: %v", client, name, err)
			hangUp()
		}
	}
}
