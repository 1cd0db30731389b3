package server_test

import (
	"net/netip"
	"sync"
	"testing"

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
	// TCP tries again until the kernel takes packets to the new address.
	for _, network := range []string{"tcp", "udp"} {
		mu.Lock()
		seen = nil
		mu.Unlock()
		if m, err := exchange(t, network, "", "[fe80::5%lo]:5348", query("www.example.com")); err != nil || len(m.Answer) != 1 {
			t.Fatalf("%s: %v, %v", network, m, err)
		}
		mu.Lock()
		if len(seen) == 0 || seen[0] != netip.MustParseAddr("fe80::5%lo") {
			t.Errorf("over %s the client is %v", network, seen)
		}
		mu.Unlock()
	}
}
