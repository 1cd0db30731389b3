// Package lab is a small internet in network namespaces, for tests and for the
// newcomer who runs `smartdns lab`:
//
//	client 192.168.8.20 ── lan0 gateway wan0 ── ISP ───────── world ──── far end
//	       fd00:8::20       │  192.0.2.2        injector      8.8.8.8    45.76.1.2
//	box    172.30.0.2 ──────┘  2001:db8:2::2    223.5.5.5     93.184/16  10.9.0.1
//	                  br-box                    39.156/16
//
// The ISP's DNS servers lie, and an injector on the gateway's uplink forges
// answers of the others. A sniffer beside it counts what the gateway sends that
// it should not. The far end is that of a WireGuard tunnel, which the gateway
// does not have until a test, or the daemon, makes it.
//
// The gateway forwards without translating addresses: the ISP knows the way
// back to the LAN. So a server tells who came how: the gateway by its uplink's
// address, a LAN client by its own, and both through the tunnel, where they are
// masqueraded, by 10.9.0.2.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
)

// Reporter is told what happens in the world; a testing.TB is one. It is called
// from any goroutine, and no more after Close.
type Reporter interface {
	Logf(format string, args ...any)
}

// World is the lab, built and running.
type World struct {
	Client  *Namespace // a LAN host
	Box     *Namespace // a container behind the gateway's bridge br-box
	Gateway *Gateway
	ISP     *Namespace
	Outside *Namespace // the clean world
	FarEnd  *FarEnd

	Zone     *Zone
	DNS      *DNS
	Injector *Injector
	Sniffer  *Sniffer

	// Dir holds the files of this world. It is deleted by Close.
	Dir string

	closers []func() error // in the order of building
	inbound atomic.Uint32  // numbers inbound sessions
	running sync.WaitGroup
}

// Names of the gateway's links.
const (
	lanName    = "lan0"
	uplinkName = "wan0"
	bridgeName = "br-box"
	ispLink    = "gw0" // the ISP's end of the uplink
)

// New builds the world. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN in its user
// namespace (see Enter), and does not touch the namespaces it is called in. ctx
// bounds the building alone.
func New(ctx context.Context, r Reporter) (*World, error) {
	w := &World{}
	if err := w.build(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("building the lab: %w", err), w.Close())
	}
	return w, nil
}

func (w *World) build(ctx context.Context, r Reporter) error {
	dir, err := os.MkdirTemp("", "smartdns-lab-")
	if err != nil {
		return err
	}
	w.Dir = dir
	w.onClose(func() error { return os.RemoveAll(dir) })
	for _, step := range []func(Reporter) error{w.hosts, w.wire, w.routes, w.tunnelEnd, w.names, w.watch, w.web} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(r); err != nil {
			return err
		}
	}
	for _, n := range []*Namespace{w.Client, w.Box, w.Gateway.Namespace, w.ISP, w.Outside, w.FarEnd.Namespace} {
		if err := n.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) onClose(f func() error) { w.closers = append(w.closers, f) }

// Close ends all processes in the world, its servers and its namespaces, and
// deletes its files. A second call does nothing.
func (w *World) Close() error {
	var errs []error
	if w.Gateway != nil {
		errs = append(errs, w.Gateway.killAll())
	}
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	w.closers = nil
	w.running.Wait()
	return errors.Join(errs...)
}

func (w *World) hosts(r Reporter) error {
	var gateway, far *Namespace
	for _, h := range []struct {
		to   **Namespace
		name string
		dns  netip.Addr
	}{
		{&w.Client, "client", LANV4},
		{&w.Box, "box", netip.MustParseAddr("172.30.0.1")},
		{&gateway, "gateway", netip.MustParseAddr("127.0.0.1")},
		{&w.ISP, "home", AliDNS},
		{&w.Outside, "abroad", Google},
		{&far, "far end", Google},
	} {
		n, err := newNamespace(h.name, h.dns.String(), true)
		if err != nil {
			return err
		}
		*h.to = n
		w.onClose(n.close)
	}
	w.Gateway = &Gateway{Namespace: gateway, dir: w.Dir, report: r}
	w.FarEnd = &FarEnd{Namespace: far}
	return nil
}

// Transit networks, seen only in traces.
var (
	backboneV4 = netip.MustParsePrefix("100.64.0.0/30")
	backboneV6 = netip.MustParsePrefix("fd00:ff::/64")
	hostingV4  = netip.MustParsePrefix("45.76.1.0/24")
	hostingV6  = netip.MustParsePrefix("2001:19f0:1::/64")
)

// host returns the nth address of p, with p's length.
func host(p netip.Prefix, n int) netip.Prefix {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return netip.PrefixFrom(a, p.Bits())
}

func (w *World) wire(Reporter) error {
	in := netip.PrefixFrom
	for _, c := range [][2]end{
		{{w.Client, "eth0", []netip.Prefix{in(ClientV4, 24), in(ClientV6, 64)}},
			{w.Gateway.Namespace, lanName, []netip.Prefix{in(LANV4, 24), in(LANV6, 64)}}},
		{{w.Box, "eth0", []netip.Prefix{in(BoxV4, 24), in(BoxV6, 64)}}, {w.Gateway.Namespace, "veth-box", nil}},
		{{w.Gateway.Namespace, uplinkName, []netip.Prefix{in(UplinkV4, 24), in(UplinkV6, 64)}},
			{w.ISP, ispLink, []netip.Prefix{in(RouterV4, 24), in(RouterV6, 64)}}},
		{{w.ISP, "backbone", []netip.Prefix{host(backboneV4, 1), host(backboneV6, 1)}},
			{w.Outside, "backbone", []netip.Prefix{host(backboneV4, 2), host(backboneV6, 2)}}},
		{{w.Outside, "hosting", []netip.Prefix{host(hostingV4, 1), host(hostingV6, 1)}},
			{w.FarEnd.Namespace, "eth0", []netip.Prefix{host(hostingV4, 2), host(hostingV6, 2)}}},
	} {
		if err := cable(c[0], c[1]); err != nil {
			return err
		}
	}
	return w.Gateway.bridge(bridgeName, "veth-box", host(netip.MustParsePrefix("172.30.0.0/24"), 1), host(netip.MustParsePrefix("fd00:30::/64"), 1))
}

func (w *World) routes(Reporter) error {
	for _, n := range []*Namespace{w.Gateway.Namespace, w.ISP, w.Outside, w.FarEnd.Namespace} {
		if err := n.SetForwarding(true); err != nil {
			return err
		}
	}
	for _, n := range []*Namespace{w.ISP, w.Outside, w.FarEnd.Namespace} {
		// Sessions begin at any of the addresses that are routed to us, and
		// every probe gets its ICMP error.
		if err := errors.Join(n.SetSysctl("net/ipv6/ip_nonlocal_bind", "1"), n.SetSysctl("net/ipv4/icmp_ratelimit", "0"), n.SetSysctl("net/ipv6/icmp/ratelimit", "0")); err != nil {
			return err
		}
	}
	// Whoever takes a foreign address for a neighbour is answered.
	if err := errors.Join(w.ISP.SetSysctl("net/ipv4/conf/"+ispLink+"/proxy_arp", "1"), w.ISP.SetSysctl("net/ipv4/neigh/"+ispLink+"/proxy_delay", "0")); err != nil {
		return err
	}
	for _, d := range []struct {
		ns     *Namespace
		v4, v6 netip.Addr
	}{
		{w.Client, LANV4, LANV6},
		{w.Box, netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:30::1")},
		{w.Gateway.Namespace, RouterV4, RouterV6},
		{w.ISP, host(backboneV4, 2).Addr(), host(backboneV6, 2).Addr()},
		{w.Outside, host(backboneV4, 1).Addr(), host(backboneV6, 1).Addr()},
		{w.FarEnd.Namespace, host(hostingV4, 1).Addr(), host(hostingV6, 1).Addr()},
	} {
		if err := d.ns.defaults(d.v4, d.v6); err != nil {
			return err
		}
	}
	back := []Route{
		{To: netip.PrefixFrom(ClientV4, 24).Masked(), Via: UplinkV4},
		{To: netip.PrefixFrom(BoxV4, 24).Masked(), Via: UplinkV4},
		{To: netip.PrefixFrom(ClientV6, 64).Masked(), Via: UplinkV6},
		{To: netip.PrefixFrom(BoxV6, 64).Masked(), Via: UplinkV6},
	}
	for _, r := range back {
		if err := w.ISP.AddRoute(r); err != nil {
			return err
		}
	}
	for _, r := range []Route{
		{To: netip.PrefixFrom(TunnelV4, 24).Masked(), Via: host(hostingV4, 2).Addr()},
		{To: netip.PrefixFrom(TunnelV6, 64).Masked(), Via: host(hostingV6, 2).Addr()},
	} {
		if err := w.Outside.AddRoute(r); err != nil {
			return err
		}
	}
	if err := w.ISP.own(homePrefixes...); err != nil {
		return err
	}
	return w.Outside.own(abroadPrefixes...)
}

func (w *World) tunnelEnd(r Reporter) error {
	f, err := startFarEnd(w.FarEnd.Namespace, firstPlace(), r.Logf)
	if err != nil {
		return err
	}
	w.FarEnd = f
	w.onClose(f.closeDevice)
	return os.WriteFile(w.Gateway.WireGuardFile(), []byte(f.ClientConfig()), 0o600)
}

func (w *World) names(Reporter) error {
	var err error
	if w.Zone, err = newZone(); err != nil {
		return err
	}
	authority, cert, err := newCertificates(worldDNS...)
	if err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := os.WriteFile(w.Gateway.AuthorityFile(), authority, 0o644); err != nil {
		return err
	}
	w.DNS = newDNS(w.Zone)
	w.onClose(w.DNS.close)
	for _, a := range domesticDNS {
		if err := w.ISP.up("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
		if err := w.DNS.serve(w.ISP, a, AtHome, nil); err != nil {
			return err
		}
	}
	for _, a := range worldDNS {
		if err := w.Outside.up("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
		if err := w.DNS.serve(w.Outside, a, Abroad, cert); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) watch(Reporter) error {
	var err error
	if w.Injector, err = newInjector(w.ISP, ispLink, w.Zone); err != nil {
		return fmt.Errorf("starting the injector: %w", err)
	}
	w.onClose(w.Injector.close)
	w.running.Go(w.Injector.run)
	if w.Sniffer, err = newSniffer(w.ISP, ispLink, w.Gateway.Namespace); err != nil {
		return err
	}
	w.onClose(w.Sniffer.close)
	w.running.Go(w.Sniffer.run)
	return nil
}

func (w *World) web(Reporter) error {
	s := newServers()
	w.onClose(s.close)
	for _, n := range []*Namespace{w.ISP, w.Outside} {
		if err := s.serve(n, webPorts...); err != nil {
			return fmt.Errorf("starting the servers %s: %w", n.Name, err)
		}
	}
	for _, n := range []*Namespace{w.Client, w.Box, w.Gateway.Namespace, w.FarEnd.Namespace} {
		if err := s.serve(n, InboundPort); err != nil {
			return fmt.Errorf("starting the server of the %s: %w", n.Name, err)
		}
	}
	return nil
}
