package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/web/api"
)

// reloads is how often the config of TestReloadsLoseNothing is read.
const reloads = 100

// reloaded is the config of the n-th reload that is right. Its lines, lists,
// sides, listeners and clients change, each at its own pace; the foreign side
// never does.
func reloaded(dir string, n int) string {
	pick := func(every int, a, b string) string {
		if n/every%2 == 0 {
			return a
		}
		return b
	}
	return `
[listen]
dns = ["` + ours + `"` + pick(3, "", `, "127.0.0.1:5302"`) + `]

[tunnel.wg0]
config = "` + filepath.Join(dir, "wg0.conf") + `"

[side.domestic]
servers = ["` + pick(1, "127.0.0.2:5301", "127.0.0.3:5301") + `"]

[side.foreign]
servers = ["tcp://` + authority + `"]
via     = "direct"

[list.near]
file   = "` + filepath.Join(dir, "home.txt") + `"
region = "CN"

[list.names]
file = "` + filepath.Join(dir, pick(2, "names.txt", "others.txt")) + `"

[geo]
sources = ["list:near"]

[poison]
probe = false

[decide]
names = [
  { match = "turn.example.net", answer = ["` + turn(n) + `"] },
  { match = "limited.example.net", answer = "block", clients = ["127.0.9.` + pick(1, "8", "9") + `"] },
  { match = "list:names", ask = "domestic" },
  { match = "judged.example.net", ask = "auto" },
  { match = "*", ask = "foreign" },
]
`
}

// turn is the address that tells one right config from the others.
func turn(n int) string { return fmt.Sprintf("10.9.8.%d", n) }

// wrong are configs that must change nothing, made of one that is right.
var wrong = []func(right, dir string) string{
	func(right, _ string) string { return right[:len(right)/2] },
	func(right, _ string) string { return strings.Replace(right, "[listen]", "[listen]\ncolour = 1", 1) },
	func(right, _ string) string {
		return strings.Replace(right, `ask = "domestic"`, `ask = "elsewhere"`, 1)
	},
	func(right, dir string) string { return strings.Replace(right, "home.txt", "nowhere.txt", 1) },
	func(right, _ string) string { return strings.Replace(right, "tcp://"+authority, ours, 1) },
	func(right, dir string) string {
		return strings.Replace(right, "[tunnel.wg0]\nconfig = \""+filepath.Join(dir, "wg0.conf")+"\"\n", "", 1)
	},
}

const reloadWireGuard = `[Interface]
PrivateKey = wHWXsWT95uQqCioLcPywGmbgkvtIl3oIBtiOxsI40lk=
Address = 10.2.0.2/32

[Peer]
PublicKey = n/q1aWwBuH/DzO9AmuYWGAGnOkOv8Bd0APVXmbj0MhA=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 198.51.100.7:51820
`

// askedServers answers truthfully, and keeps count.
type askedServers struct {
	mu          sync.Mutex
	connections map[string]bool
	warm        atomic.Int64 // questions for names that are in the cache
}

func (a *askedServers) answer(w dns.ResponseWriter, q *dns.Msg) {
	name := strings.ToLower(q.Question[0].Name)
	if strings.HasPrefix(name, "warm") {
		a.warm.Add(1)
	}
	if w.RemoteAddr().Network() == "tcp" {
		a.mu.Lock()
		a.connections[w.RemoteAddr().String()] = true
		a.mu.Unlock()
	}
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: truthOf(name)}}
	}
	w.WriteMsg(m)
}

func (a *askedServers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.connections)
}

// steadyClients is how many ask at a time. Each has domains of its own, so that
// no domain has more addresses than may be marked.
const steadyClients = 40

// listedNames is the list of their names that the domestic side is asked for.
func listedNames() string {
	var all strings.Builder
	for i := range steadyClients {
		fmt.Fprintf(&all, "listed%d.net\n", i)
	}
	return all.String()
}

// steady asks up to 250 questions a second as one client until stop is closed,
// and notes each that was not answered right. Three of four are for names that
// are in the cache.
func steady(t *testing.T, client int, stop <-chan struct{}) (asked int) {
	network, most := "udp", 0
	if client%4 == 3 {
		network, most = "tcp", 900 // we close a connection after a thousand
	}
	d := dns.Client{Net: network, Timeout: 8 * time.Second, Dialer: &net.Dialer{LocalAddr: localAddr(network, client)}}
	c, err := d.Dial(ours)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { c.Close() }()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return asked
		case <-tick.C:
		}
		asked++
		if most > 0 && asked%most == 0 {
			c.Close()
			if c, err = d.Dial(ours); err != nil {
				t.Error(err)
				return asked
			}
		}
		name := fmt.Sprintf("warm%d.example.net.", asked%100)
		switch asked % 8 {
		case 0:
			name = fmt.Sprintf("miss%d-%d.example%[1]d.org.", client, asked)
		case 4:
			name = fmt.Sprintf("miss%d-%d.listed%[1]d.net.", client, asked)
		}
		m, _, err := d.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), c)
		if err != nil || len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(truthOf(name)) {
			t.Errorf("%s over %s: %v, %v", name, network, m, err)
			return asked
		}
	}
}

// A hundred reloads, of which every other is refused, under 2,000 queries a
// second over UDP and TCP, for cached names and others: no query is lost or
// fails, what is wrong changes nothing, and cache, verdicts, marks and the
// connections of the side that stays the same are kept. Nothing is left behind
// (SECURITY F-33).
func TestReloadsLoseNothing(t *testing.T) {
	servers := &askedServers{connections: map[string]bool{}}
	serve(t, servers.answer)
	for _, addr := range []string{"127.0.0.2:5301", "127.0.0.3:5301"} {
		serveAt(t, addr, servers.answer)
	}
	files := t.TempDir()
	for name, text := range map[string]string{
		"home.txt": "114.240.0.0/12\n", "wg0.conf": reloadWireGuard, "names.txt": listedNames(), "others.txt": "other.example.net\n",
	} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	right := 0
	dir := run(t, reloaded(files, right))
	control := api.Dial(filepath.Join(dir, "run", "control.sock"))
	for i := range 100 {
		lookup(t, fmt.Sprintf("warm%d.example.net.", i))
	}
	lookup(t, "judged.example.net.")
	marks, verdicts := marksNow(t, control), verdictsNow(t, control)
	if len(marks) < 100 || verdicts == 0 {
		t.Fatalf("%d marks and %d verdicts", len(marks), verdicts)
	}
	warm, connections, before := servers.warm.Load(), servers.count(), measure(t, control)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var asked atomic.Int64
	begun := time.Now()
	for i := range steadyClients {
		clients.Go(func() { asked.Add(int64(steady(t, i, stop))) })
	}
	pace := time.NewTicker(40 * time.Millisecond)
	defer pace.Stop()
	for i := range reloads {
		<-pace.C
		config := reloaded(files, right+1)
		bad := i%2 == 1
		if bad {
			config = wrong[i/2%len(wrong)](config, files)
		}
		if err := os.WriteFile(filepath.Join(dir, "smartdns.toml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := control.Reload(t.Context())
		if bad == (err == nil) {
			t.Errorf("reload %d, wrong %t: %v", i, bad, err)
		}
		if !bad {
			right++
		}
		if got := lookup(t, "turn.example.net."); got != turn(right) {
			t.Errorf("after reload %d: %s, want %s", i, got, turn(right))
		}
	}
	took := time.Since(begun)
	close(stop)
	clients.Wait()
	t.Logf("%d queries (%.0f/s) and %d reloads in %s; %d more questions for cached names, %d more connections",
		asked.Load(), float64(asked.Load())/took.Seconds(), reloads, took, servers.warm.Load()-warm, servers.count()-connections)

	if n := servers.warm.Load() - warm; n > 0 {
		t.Errorf("%d questions for names that were in the cache", n)
	}
	// One more may be needed while a burst keeps the first one busy.
	if n := servers.count() - connections; n > 4 {
		t.Errorf("%d more connections to a side that stayed the same", n)
	}
	now := marksNow(t, control)
	for addr, path := range marks {
		if now[addr] != path {
			t.Errorf("%s was marked for %s, and now is for %q", addr, path, now[addr])
		}
	}
	if n := verdictsNow(t, control); n != verdicts {
		t.Errorf("%d verdicts, and there were %d", n, verdicts)
	}
	// Sockets that wait for a query close within 20 s, and two crews keep 64
	// goroutines each for the next queries.
	eventually(t, "as few goroutines and descriptors as before", func() bool {
		f := measure(t, control)
		return runtime.NumGoroutine() <= before.goroutines+2*64+2 && f.descriptors <= before.descriptors+2
	})
}

func marksNow(t *testing.T, c *api.Client) map[netip.Addr]string {
	t.Helper()
	m, err := c.Marks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[netip.Addr]string{}
	for _, line := range m.Marks {
		all[line.Addr] = line.Path
	}
	return all
}

func verdictsNow(t *testing.T, c *api.Client) int {
	t.Helper()
	v, err := c.Verdicts(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return len(v.Verdicts)
}
