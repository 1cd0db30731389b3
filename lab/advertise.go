package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Advertise has the ISP's router say that it is the gateway's IPv6 router, and
// returns when the gateway's default route is the one that follows from that,
// and no other (RFC 4861 section 4.2).
func (w *World) Advertise(ctx context.Context) error {
	g := w.Gateway.Namespace
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if err := errors.Join(
		g.SetSysctl("net/ipv6/conf/"+uplinkName+"/accept_ra", "2"), // 2: also while forwarding
		g.DeleteRoute(Route{To: all, Via: RouterV6}),
		w.ISP.Do(advertise),
	); err != nil {
		return fmt.Errorf("advertising the ISP's router: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		routes, err := g.nl.RouteGet(AbroadWebV6.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Gw.IsLinkLocalUnicast() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the gateway takes no advertised route: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// advertise sends one router advertisement to everybody on the ISP's link.
func advertise() error {
	link, err := net.InterfaceByName(ispLink)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // the kernel fills in the checksum
	binary.BigEndian.PutUint16(message[6:], 1800)                        // seconds, as a default router
	to := unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(link.Index)}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Index),
		unix.Sendto(fd, message, 0, &to))
}
