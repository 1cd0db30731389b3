package wg

import (
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// wgctrl speaks net.IP; these are the only places that do.

func toNets(prefixes []netip.Prefix) []net.IPNet {
	nets := make([]net.IPNet, len(prefixes))
	for i, p := range prefixes {
		nets[i] = net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	return nets
}

// fromNets returns nets sorted, as a Peer's AllowedIPs are.
func fromNets(nets []net.IPNet) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, n := range nets {
		a, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if a = a.Unmap(); ok && bits == a.BitLen() {
			prefixes = append(prefixes, netip.PrefixFrom(a, ones))
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return prefixes
}

func toUDP(a netip.AddrPort) *net.UDPAddr {
	if !a.IsValid() {
		return nil
	}
	return net.UDPAddrFromAddrPort(a)
}

func fromUDP(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func observed(kind Kind, d *wgtypes.Device) Observation {
	o := Observation{Kind: kind, Peers: make(map[PublicKey]PeerState, len(d.Peers))}
	for _, p := range d.Peers {
		o.Peers[PublicKey(p.PublicKey)] = PeerState{
			Endpoint:  fromUDP(p.Endpoint),
			Handshake: p.LastHandshakeTime,
			RX:        p.ReceiveBytes,
			TX:        p.TransmitBytes,
		}
	}
	return o
}
