package daemon

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"smartdns/routing"
)

// neverMark is the addresses that no answer may put into a set, each with the
// reason (SECURITY 6.3). Special addresses are the resolver's business.
type neverMark struct{ reasons bart.Table[string] }

// Reason returns why a must not be marked, "" when it may be.
func (n *neverMark) Reason(a netip.Addr) string {
	if n == nil {
		return ""
	}
	why, _ := n.reasons.Lookup(a.Unmap().WithZone(""))
	return why
}

func (n *neverMark) add(p netip.Prefix, why string) {
	if p = p.Masked(); p.IsValid() && p.Bits() > 0 {
		n.reasons.Insert(p, why)
	}
}

func (n *neverMark) addAddr(a netip.Addr, why string) {
	if a = a.Unmap().WithZone(""); a.IsValid() {
		n.add(netip.PrefixFrom(a, a.BitLen()), why)
	}
}

// anUpstream is why the address of a server of ours is never marked.
const anUpstream = "an upstream resolver"

// never gathers them. Endpoints are where the tunnels call now. Of networks only
// those of the file count: any other may be what an evil DHCP server says, to
// have its addresses left out of the tunnel (CVE-2023-36672).
func (p *Parts) never(f routing.Facts, endpoints []netip.Addr) *neverMark {
	n := &neverMark{}
	for _, l := range lanPrefixes(p.Config, f) {
		n.add(l, "in a network of the LAN")
	}
	for _, i := range f.Links {
		for _, a := range i.Addrs {
			n.addAddr(a.Addr(), "an address of this host")
		}
	}
	for _, g := range f.Gateways {
		n.addAddr(g, "a gateway of this host")
	}
	for _, s := range p.Config.Sides {
		for _, server := range slices.Concat(s.Servers, s.Bootstrap) {
			for _, a := range server.Known() {
				n.addAddr(a.Addr(), anUpstream)
			}
		}
		n.addAddr(s.SOCKS5.Addr.Addr(), "a proxy of ours")
	}
	for _, t := range p.Tunnels {
		for _, o := range t.own() {
			n.add(o, "in a network of tunnel "+string(t.Path))
		}
		for _, peer := range t.WG.Peers {
			if a, ok := peer.Endpoint.Literal(); ok {
				n.addAddr(a.Addr(), "a WireGuard endpoint")
			}
		}
	}
	for _, e := range endpoints {
		n.addAddr(e, "a WireGuard endpoint")
	}
	return n
}
