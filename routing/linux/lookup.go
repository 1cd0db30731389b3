package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Way is what the kernel would do with a packet. The zero Dev means that it
// would not send it.
type Way struct {
	Dev     string
	Table   uint32
	Via     netip.Addr // the next hop; not valid where there is none
	Source  netip.Addr // the address the host itself would use
	MTU     int        // of the route or the link, in bytes
	Refused string     // why it would not be sent, in the kernel's words
}

func (w Way) String() string {
	if w.Dev == "" {
		return w.Refused
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table %d dev %s", w.Table, w.Dev)
	if w.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", w.Via)
	}
	if w.Source.IsValid() {
		fmt.Fprintf(&b, " src %s", w.Source)
	}
	return b.String()
}

// RouteGet asks the kernel which way the host's packets with mark to addr
// leave: "ip route get ADDR mark MARK".
func (k *Kernel) RouteGet(addr netip.Addr, mark uint32) (Way, error) {
	addr = addr.Unmap().WithZone("")
	routes, err := k.h.RouteGetWithOptions(net.IP(addr.AsSlice()), &netlink.RouteGetOptions{Mark: mark})
	for _, no := range []unix.Errno{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, no) { // unreachable, no route, prohibit, blackhole
			return Way{Refused: no.Error()}, nil
		}
	}
	if err == nil && len(routes) == 0 {
		err = errors.New("empty answer")
	}
	if err != nil {
		return Way{}, fmt.Errorf("asking for the route to %s with mark %#x: %w", addr, mark, err)
	}
	r := routes[0]
	l, err := k.h.LinkByIndex(r.LinkIndex)
	if err != nil {
		return Way{}, fmt.Errorf("finding the link of the route to %s: %w", addr, err)
	}
	w := Way{Dev: l.Attrs().Name, Table: uint32(r.Table), MTU: l.Attrs().MTU}
	if r.MTU > 0 {
		w.MTU = min(w.MTU, r.MTU)
	}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		w.Via = gw.Unmap()
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		w.Source = src.Unmap()
	}
	if r.Type == unix.RTN_UNREACHABLE || r.Type == unix.RTN_PROHIBIT || r.Type == unix.RTN_BLACKHOLE {
		// IPv6 may answer with the route that refuses.
		w = Way{Table: w.Table, Refused: string(routeType(r.Type))}
	}
	return w, nil
}

// RouteMTU returns the MTU in bytes of the way to addr for packets with mark; 0
// where there is none.
func (k *Kernel) RouteMTU(addr netip.Addr, mark uint32) (int, error) {
	w, err := k.RouteGet(addr, mark)
	return w.MTU, err
}

// Flow is one connection as conntrack knows it.
type Flow struct {
	Protocol uint8 // of IP
	Src, Dst netip.AddrPort
	Mark     uint32
	Packets  uint64 // both ways; 0 unless the kernel counts
	Bytes    uint64
}

// Flows returns the connections to addr.
func (k *Kernel) Flows(addr netip.Addr) ([]Flow, error) {
	addr = addr.Unmap().WithZone("")
	family := netlink.InetFamily(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	flows, err := k.h.ConntrackTableList(netlink.ConntrackTable, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing connections: %w", permission(err))
	}
	var to []Flow
	for _, f := range flows {
		src, _ := netip.AddrFromSlice(f.Forward.SrcIP)
		dst, _ := netip.AddrFromSlice(f.Forward.DstIP)
		if dst = dst.Unmap(); dst == addr {
			to = append(to, Flow{
				Protocol: f.Forward.Protocol,
				Src:      netip.AddrPortFrom(src.Unmap(), f.Forward.SrcPort),
				Dst:      netip.AddrPortFrom(dst, f.Forward.DstPort),
				Mark:     f.Mark,
				Packets:  f.Forward.Packets + f.Reverse.Packets,
				Bytes:    f.Forward.Bytes + f.Reverse.Bytes,
			})
		}
	}
	return to, nil
}

// CutFlows makes the kernel forget the connections whose mark has value in
// field, v4 and v6, and returns how many there were. Their next packets are
// decided anew.
func (k *Kernel) CutFlows(field routing.Field, value uint32) (int, error) {
	var n uint
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		cut, err := k.h.ConntrackDeleteFilters(netlink.ConntrackTable, family, markFilter{uint32(field), value})
		n += cut
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			errs = append(errs, fmt.Errorf("deleting connections with mark %s: %w", field.Format(value), permission(err)))
		}
	}
	return int(n), errors.Join(errs...)
}

type markFilter struct{ mask, value uint32 }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m markFilter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Mark&m.mask == m.value
}
