package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/web/api"
)

// swaps is how often the list of TestListSwapsMoveAddresses changes.
const swaps = 50

// moved is the half of the answers that a list moves home and abroad.
var moved = netip.MustParsePrefix("93.184.128.0/17")

// Fifty times a list moves prefixes between home and abroad under 2,000 queries
// a second: no query is lost, and once the swap is reported every answer names
// the way that the list says, and no mark in the kernel sends an address another
// way, not even one that a query of before the swap was about to put there.
func TestListSwapsMoveAddresses(t *testing.T) {
	servers := &askedServers{connections: map[string]bool{}}
	serve(t, servers.answer)
	for _, addr := range []string{"127.0.0.2:5301", "127.0.0.3:5301"} {
		serveAt(t, addr, servers.answer)
	}
	files := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(files, name+".new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(files, name+".new"), filepath.Join(files, name)); err != nil {
			t.Fatal(err)
		}
	}
	const near = "114.240.0.0/12\n"
	write("home.txt", near)
	write("wg0.conf", reloadWireGuard)
	write("names.txt", listedNames())
	dir := run(t, reloaded(files, 0))
	control := api.Dial(filepath.Join(dir, "run", "control.sock"))
	var names []string // whose addresses move
	for i := 0; len(names) < 5; i++ {
		name := fmt.Sprintf("warm%d.example.net.", i)
		if a, _ := netip.AddrFromSlice(truthOf(name).To4()); moved.Contains(a) {
			names = append(names, name)
		}
	}

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var asked atomic.Int64
	begun := time.Now()
	for i := range steadyClients {
		clients.Go(func() { asked.Add(int64(steady(t, i, stop))) })
	}
	pace := time.NewTicker(40 * time.Millisecond)
	defer pace.Stop()
	for i := range swaps {
		<-pace.C
		text, path, region := near, "wg0", "abroad"
		if i%2 == 0 {
			text, path, region = near+moved.String()+"\n", "direct", "home"
		}
		write("home.txt", text)
		if _, err := control.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			d, err := control.Query(t.Context(), name, "A", "")
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Answers) != 1 || d.Answers[0].Path != path || d.Answers[0].Region != region {
				t.Errorf("after swap %d, %s: %+v, want %s by %s", i, name, d.Answers, region, path)
			}
		}
		before := flowsOn(t, control, "wg0")
		open(t, netip.AddrPortFrom(moved.Addr().Next(), uint16(9000+i)))
		if n := flowsOn(t, control, "wg0") - before; (n == 1) != (path == "wg0") || n > 1 {
			s, _ := control.Status(t.Context())
			t.Errorf("after swap %d, a new flow to an address that goes %s made %d on wg0 %+v", i, path, n, s.Counters)
		}
		for addr, is := range marksNow(t, control) {
			if want := map[bool]string{true: path, false: "wg0"}[moved.Contains(addr)]; is != want {
				t.Errorf("after swap %d, %s is marked for %s, want %s", i, addr, is, want)
			}
		}
	}
	took := time.Since(begun)
	close(stop)
	clients.Wait()
	t.Logf("%d queries (%.0f/s) and %d swaps in %s", asked.Load(), float64(asked.Load())/took.Seconds(), swaps, took)
}

// open begins a flow to an address that no answer ever had, and a port that is
// not asked again: the flow of another swap from the same port would still have
// its path.
func open(t *testing.T, to netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("x")) // that it is refused is no matter
}

// flowsOn returns how many new flows our table has sent by a path.
func flowsOn(t *testing.T, c *api.Client, path string) uint64 {
	t.Helper()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Counters {
		if n.Name == "new flows on "+path {
			return n.Value
		}
	}
	t.Fatalf("no counter of %s: %+v", path, s.Counters)
	return 0
}
