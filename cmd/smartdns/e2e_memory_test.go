package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// A daemon whose control group may have 64 MiB, userspace tunnel included, stays
// within them while clients ask for very many names: answers go, it does not.
// What is asked for all the time is answered, the tunnel carries, and nothing
// leaks (SECURITY F-32; 4,000 names, or 400,000).
func TestDaemonStaysWithinItsMemory(t *testing.T) {
	group, why := memoryGroup(t, 64<<20)
	if why != nil {
		t.Skipf("SKIPPED: no control group can be made here: %v", why)
	}
	w := newWorld(t)
	d, err := w.Gateway.StartDaemon(w.context(20*time.Second), []string{"/bin/sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, group, w.exe}, w.config)
	if err != nil {
		t.Fatal(err)
	}
	w.daemon = d
	w.waitUp()
	const clients = 8
	names := sized(4_000, 400_000)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			c, err := w.Client.Dial(w.context(20*time.Second), "udp", netip.AddrPort{}, netip.AddrPortFrom(gatewayDNS, 53))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			conn := &dns.Conn{Conn: c}
			for i := range names / clients {
				q := new(dns.Msg).SetQuestion(fmt.Sprintf("nobody-%d-%d.%s.cn.test.", client, i, strings.Repeat("x", 50)), dns.TypeA)
				if i%10 == 0 {
					q.SetQuestion(fmt.Sprintf("n%05d.cn.test.", 1+i%100), dns.TypeA)
				}
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if err := conn.WriteMsg(q); err != nil {
					t.Error(err)
					return
				}
				m, err := conn.ReadMsg()
				if err != nil || i%10 == 0 && len(lab.Addresses(m)) == 0 {
					t.Errorf("%s: %v, %v", q.Question[0].Name, m, err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, from := range w.hosts()[:2] {
		w.bothWays(from, 3<<20)
	}
	used := 0
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if b, err := os.ReadFile(filepath.Join(group, file)); err == nil {
			used, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
	}
	t.Logf("after %d names it had used %d MiB at most; %+v", names, used>>20, w.cacheStats())
	w.stop()
	w.noLeaks()
}

// memoryGroup makes a control group that may have so many octets, of whichever
// version this system has, or says why it cannot.
func memoryGroup(t *testing.T, limit int) (dir string, err error) {
	t.Helper()
	root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(root); err != nil {
		root, file = "/sys/fs/cgroup", "memory.max"
	}
	dir = filepath.Join(root, fmt.Sprintf("smartdns-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	t.Cleanup(func() { os.Remove(dir) }) // fails while somebody is in it
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		return "", err
	}
	return dir, nil
}
