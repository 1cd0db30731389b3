package server_test

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/cache"
	"smartdns/resolver/server"
)

// A link-local client is told by its link as well, over each transport by the
// same word.
func TestLinkLocalClientsHaveTheirLink(t *testing.T) {
	addAddr(t, "lo", "fe80::5/64")
	s, _ := start(t, echoA, server.DefaultLimits(), "[::]:5348")
	var mu sync.Mutex
	var seen []netip.Addr
	s.SetAccess(func(_ netip.AddrPort, client netip.Addr) (cache.View, bool) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, client)
		return 0, true
	})
	for _, network := range []string{"udp", "tcp"} {
		askUntilAnswered(t, network, "[fe80::5%lo]:5348")
		mu.Lock()
		if len(seen) == 0 || seen[len(seen)-1] != netip.MustParseAddr("fe80::5%lo") {
			t.Errorf("over %s the client is %v", network, seen)
		}
		seen = nil
		mu.Unlock()
	}
}

// askUntilAnswered asks again and again: it takes the kernel a while to take
// packets to an address that is new.
func askUntilAnswered(t *testing.T, network, to string) {
	t.Helper()
	ask := func() error {
		c, err := dns.DialTimeout(network, to, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := c.Write(query("www.example.com")); err != nil {
			return err
		}
		_, err = c.ReadMsg()
		return err
	}
	err := ask()
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); err = ask() {
		runtime.Gosched()
	}
	if err != nil {
		t.Fatal(err)
	}
}
