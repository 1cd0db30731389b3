package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// AddFarEnd adds the far end of a second tunnel to the world, and returns it
// with the wg-quick file of the gateway's end, called wg1.conf. It is called
// once, and its WireGuard packets are no leak.
func (w *World) AddFarEnd(ctx context.Context, r Reporter) (f *FarEnd, file string, err error) {
	at := secondPlace()
	ns, err := newNamespace(at.name, Google.String(), true)
	if err != nil {
		return nil, "", err
	}
	w.onClose(ns.close)
	var here, there []netip.Prefix
	for _, p := range at.hosting {
		here, there = append(here, host(p, 1)), append(there, host(p, 2))
	}
	if err := cable(end{w.Outside, at.link, here}, end{ns, "eth0", there}); err != nil {
		return nil, "", err
	}
	if err := ns.SetForwarding(true); err != nil {
		return nil, "", err
	}
	if err := ns.defaults(here[0].Addr(), here[1].Addr()); err != nil {
		return nil, "", err
	}
	for i, near := range []netip.Prefix{netip.PrefixFrom(at.near4, 24), netip.PrefixFrom(at.near6, 64)} {
		if err := w.Outside.AddRoute(Route{To: near.Masked(), Via: there[i].Addr()}); err != nil {
			return nil, "", err
		}
	}
	if f, err = startFarEnd(ns, at, r.Logf); err != nil {
		return nil, "", err
	}
	w.onClose(f.closeDevice)
	w.Sniffer.Allow(func(p Packet) bool { return p.Proto == unix.IPPROTO_UDP && p.to() == at.endpoint })
	file = filepath.Join(w.Dir, "wg1.conf")
	return f, file, errors.Join(os.WriteFile(file, []byte(f.ClientConfig()), 0o600), ns.settle(ctx))
}

// TunnelOf returns the name of the tunnel that the session came out of; "" when
// it came by none. The second is called wg1.
func (s Seen) TunnelOf() string {
	switch a := s.Peer.Addr(); {
	case a == SecondV4, a == SecondV6:
		return "wg1"
	case throughTunnel(a):
		return "wg0"
	}
	return ""
}
