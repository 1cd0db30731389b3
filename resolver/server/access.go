package server

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"smartdns/resolver/cache"
)

// Access says whether a client may ask at a listener, and by which view it is
// answered. v4 addresses are never v4-mapped; link-local v6 ones have the name of
// the link that they are behind as their zone, and may be somebody else's behind
// another. It is called for every query: it must be quick and safe for
// concurrent use, and not allocate.
type Access func(listener netip.AddrPort, client netip.Addr) (view cache.View, ok bool)

// knows reports whether a client may ask, and fills in its View.
func (s *Server) knows(from *Client) (ok bool) {
	from.View, ok = (*s.access.Load())(from.Listener, from.Addr.Addr())
	return ok
}

// SetAccess replaces who may ask. It is called again when links were renamed.
func (s *Server) SetAccess(a Access) {
	s.udp.zones.forget()
	s.access.Store(&a)
}

// Allow replaces who may ask by clients with these addresses, and loopback. All
// of them have the zero View.
func (s *Server) Allow(prefixes []netip.Prefix) {
	var allowed bart.Lite
	allowed.Insert(netip.MustParsePrefix("127.0.0.0/8"))
	allowed.Insert(netip.MustParsePrefix("::1/128"))
	for _, p := range prefixes {
		allowed.Insert(p.Masked())
	}
	s.SetAccess(func(_ netip.AddrPort, client netip.Addr) (cache.View, bool) {
		return 0, allowed.Contains(client.WithZone(""))
	})
}
