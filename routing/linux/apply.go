package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Apply implements routing.Kernel. A missing capability ends it at once, with
// one error that says so.
func (k *Kernel) Apply(ctx context.Context, steps []routing.Step) error {
	var errs []error
	for len(steps) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		some := steps[:1]
		if n := routesAhead(steps); n > 1 {
			some = steps[:n]
		}
		for i, err := range k.together(some) {
			if errors.Is(err, os.ErrPermission) && !errors.Is(err, errSaving) {
				return permission(fmt.Errorf("%s: %w", some[i], err))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", some[i], err))
			}
		}
		steps = steps[len(some):]
	}
	if more := len(errs) - toldErrors; more > 0 {
		errs = append(errs[:toldErrors:toldErrors], fmt.Errorf("and %d steps more", more))
	}
	return errors.Join(errs...)
}

// toldErrors is how many errors of Apply are told: thousands of routes may fail
// for one reason.
const toldErrors = 8

// together makes the steps, of which there is one, or all are about routes, and
// returns the error of each.
func (k *Kernel) together(steps []routing.Step) []error {
	if len(steps) == 1 {
		return []error{k.step(steps[0])}
	}
	return k.batch(steps)
}

func (k *Kernel) step(step routing.Step) error {
	switch s := step.(type) {
	case routing.AddRule:
		return except(k.h.RuleAdd(netlinkRule(s.Rule)), unix.EEXIST)
	case routing.DelRule:
		return except(k.h.RuleDel(netlinkRule(s.Rule)), unix.ENOENT)
	case routing.ReplaceRoute:
		return k.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, s.Route)
	case routing.DelRoute:
		return except(k.route(unix.RTM_DELROUTE, 0, s.Route), unix.ESRCH, unix.ENODEV)
	case routing.AddAddr:
		return k.onLink(s.Addr.Dev, func(l netlink.Link) error {
			return except(k.h.AddrAdd(l, addrOf(s.Addr.Prefix, l.Attrs().Index)), unix.EEXIST)
		})
	case routing.DelAddr:
		err := k.onLink(s.Addr.Dev, func(l netlink.Link) error {
			return k.h.AddrDel(l, addrOf(s.Addr.Prefix, l.Attrs().Index))
		})
		return except(err, unix.EADDRNOTAVAIL, unix.ENODEV)
	case routing.RenameLink:
		return k.onLink(s.From, func(l netlink.Link) error { return k.rename(l, s.To) })
	case routing.SetMTU:
		return k.onLink(s.Dev, func(l netlink.Link) error { return k.h.LinkSetMTU(l, s.MTU) })
	case routing.SetLinkUp:
		return k.onLink(s.Dev, k.h.LinkSetUp)
	case routing.AddProxy:
		return k.proxy(s.Proxy, k.h.NeighSet)
	case routing.DelProxy:
		return except(k.proxy(s.Proxy, k.h.NeighDel), unix.ENOENT, unix.ENODEV)
	case routing.SetSysctl:
		return k.saved.set(s.Key, s.Value)
	case routing.RestoreSysctl:
		return k.saved.restore(s.Key)
	}
	return fmt.Errorf("unknown step %T", step)
}

// except returns nil for the errors that mean that err's step was not needed.
func except(err error, fine ...unix.Errno) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}

// onLink calls f with the link called name; ENODEV if there is none.
func (k *Kernel) onLink(name string, f func(netlink.Link) error) error {
	l, err := k.h.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return unix.ENODEV
	}
	if err != nil {
		return err
	}
	return f(l)
}

// rename gives l another name. Before Linux 6.2 a link has to be down for that;
// what it loses by it is the next difference.
func (k *Kernel) rename(l netlink.Link, name string) error {
	err := k.h.LinkSetName(l, name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := k.h.LinkSetDown(l); err != nil {
		return err
	}
	err = k.h.LinkSetName(l, name)
	return errors.Join(err, k.h.LinkSetUp(l))
}

// route sends a route message.
func (k *Kernel) route(op, flags int, r routing.Route) error {
	req, err := routeRequest(op, flags, r, k.indexOf)
	if err != nil {
		return err
	}
	req.Sockets = k.sockets
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// indexOf returns the index of the link called name.
func (k *Kernel) indexOf(name string) (int, error) {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", unix.ENODEV, name)
	}
	return l.Attrs().Index, nil
}

// routeRequest is the message about a route. The library's own would lose a
// metric above 2^31 where an int has 32 bits.
func routeRequest(op, flags int, r routing.Route, indexOf func(string) (int, error)) (*nl.NetlinkRequest, error) {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family:   netlink.FAMILY_V4,
		Dst_len:  uint8(r.Dst.Bits()),
		Protocol: r.Protocol,
		Type:     unix.RTN_UNICAST,
		Scope:    unix.RT_SCOPE_UNIVERSE,
	}}
	if r.Dst.Addr().Is6() {
		msg.Family = netlink.FAMILY_V6
	}
	for n, t := range routeTypes {
		if t == r.Type {
			msg.Type = uint8(n)
		}
	}
	req := nl.NewNetlinkRequest(op, flags|unix.NLM_F_ACK)
	req.AddData(msg)
	if r.Dst.Bits() > 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_DST, r.Dst.Addr().AsSlice()))
	}
	req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(r.Table)))
	if r.Metric != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(r.Metric)))
	}
	if r.Via.IsValid() {
		msg.Flags |= unix.RTNH_F_ONLINK
		via := nl.NewRtAttr(unix.RTA_GATEWAY, r.Via.AsSlice())
		if r.Via.Is4() != r.Dst.Addr().Is4() {
			hop := netlink.Via{AddrFamily: int(netlink.FAMILY_V6), Addr: r.Via.AsSlice()}
			encoded, err := hop.Encode()
			if err != nil {
				return nil, fmt.Errorf("encoding the next hop %s: %w", r.Via, err)
			}
			via = nl.NewRtAttr(unix.RTA_VIA, encoded)
		}
		req.AddData(via)
	}
	if r.MTU != 0 && op == unix.RTM_NEWROUTE {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(uint32(r.MTU)))
		req.AddData(metrics)
	}
	if r.Dev != "" {
		index, err := indexOf(r.Dev)
		if err != nil {
			return nil, err
		}
		req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
		if !r.Via.IsValid() && r.Dst.Addr().Is4() {
			msg.Scope = unix.RT_SCOPE_LINK
		}
	}
	if op == unix.RTM_DELROUTE {
		msg.Scope = unix.RT_SCOPE_NOWHERE // any
	}
	return req, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addrOf is p as the library takes it.
func addrOf(p netip.Prefix, index int) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p), LinkIndex: index}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	} else {
		a.Broadcast = []byte{0, 0, 0, 0} // none; the library makes one up otherwise
	}
	return a
}
