package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// guest is an address abroad from which sessions come in.
var guest = map[bool]netip.Addr{
	true: netip.MustParseAddr("93.184.100.7"), false: netip.MustParseAddr("2606:2800:220:1::99"),
}

// phone opens a session from abroad to the gateway's uplink, and returns both
// its ends.
func (w *world) phone(to netip.AddrPort) (remote, local net.Conn) {
	w.t.Helper()
	from := netip.AddrPortFrom(guest[to.Addr().Is4()], to.Port()+1000)
	w.Sniffer.AllowReplies(unix.IPPROTO_TCP, from, to)
	var l net.Listener
	err := w.Gateway.Do(func() (err error) {
		l, err = net.Listen("tcp", to.String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() }) // who listens tells who called whom
	if remote, err = w.Outside.Dial(w.context(5*time.Second), "tcp", from, to); err != nil {
		w.t.Fatal(err)
	}
	if local, err = l.Accept(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { remote.Close(); local.Close() })
	return remote, local
}

// tell sends a line from one end to the other.
func tell(from, to net.Conn) error {
	deadline := time.Now().Add(20 * time.Second)
	if err := errors.Join(from.SetDeadline(deadline), to.SetDeadline(deadline)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(from, "hello"); err != nil {
		return err
	}
	_, err := bufio.NewReader(to).ReadString('\n')
	return err
}

// A session that somebody abroad opened before the start, such as the
// administrator's own, goes on: whoever speaks first, idle or busy, to the
// gateway and to the LAN, whether conntrack was on before us or not.
func TestInboundSessionsSurviveTheStart(t *testing.T) {
	for name, before := range map[string]string{
		"without a firewall": "",
		"with a firewall":    `table inet fw { chain in { type filter hook input priority 0; ct state established,related accept; }; }`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if before != "" {
				w.nft(before)
			}
			uplinks := map[bool]netip.Addr{true: lab.UplinkV4, false: lab.UplinkV6}
			type ends struct{ remote, local net.Conn }
			var gatewayFirst, guestFirst []ends
			for v4, a := range uplinks {
				r, l := w.phone(netip.AddrPortFrom(a, 7000))
				gatewayFirst = append(gatewayFirst, ends{r, l})
				r, l = w.phone(netip.AddrPortFrom(a, 7001))
				guestFirst = append(guestFirst, ends{r, l})
				lan, err := w.ConnectIn(w.context(20*time.Second), guest[v4], map[bool]netip.Addr{true: lab.ClientV4, false: lab.ClientV6}[v4])
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := lan.Say(w.context(5*time.Second), "after the start"); err != nil {
						t.Errorf("a session to %s: %v", lan.Seen.Local, err)
					}
					lan.Close()
				}()
			}
			busy, err := w.ConnectIn(w.context(20*time.Second), guest[true], lab.UplinkV4)
			if err != nil {
				t.Fatal(err)
			}
			defer busy.Close()
			ctx, stop := context.WithCancel(t.Context())
			downloads := make(chan error)
			go func() {
				for ctx.Err() == nil {
					if err := busy.Download(t.Context(), 1<<20); err != nil {
						downloads <- err
						return
					}
				}
				downloads <- nil
			}()
			w.start()
			w.waitUp()
			stop()
			if err := <-downloads; err != nil {
				t.Errorf("the download during the start: %v", err)
			}
			for _, e := range gatewayFirst {
				if err := errors.Join(tell(e.local, e.remote), tell(e.remote, e.local)); err != nil {
					t.Errorf("%s: the gateway speaks first: %v", e.local.LocalAddr(), err)
				}
			}
			for _, e := range guestFirst {
				if err := errors.Join(tell(e.remote, e.local), tell(e.local, e.remote)); err != nil {
					t.Errorf("%s: the guest speaks first: %v", e.local.LocalAddr(), err)
				}
			}
			w.noLeaks()
		})
	}
}

// strictFilter is what firewalld's IPv6_rpfilter=strict loads.
const strictFilter = `table inet firewalld {
	chain raw_PREROUTING {
		type filter hook prerouting priority raw + 10; policy accept;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . mark . iif oif missing counter drop
	}
}`

// strictPaths turns on every reverse path filter there is.
func (w *world) strictPaths() {
	w.t.Helper()
	w.nft(strictFilter)
	for _, i := range []string{"default", "lan0", "wan0", "br-box", "all"} {
		if err := w.Gateway.SetSysctl("net/ipv4/conf/"+i+"/rp_filter", "1"); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Strict reverse path filters beside us, there before us or later, drop nothing
// of what goes either way, in or out.
func TestStrictReversePathFiltersBesideUs(t *testing.T) {
	for _, when := range []string{"before us", "after us", "before us, with what wg-quick leaves"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			w.config = inTable(w.config, "[tunnel.wg0]", `inbound = "allow"`)
			if when != "after us" {
				w.strictPaths()
			}
			if strings.Contains(when, "wg-quick") {
				if err := w.Gateway.SetSysctl("net/ipv4/conf/all/src_valid_mark", "1"); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			w.waitUp()
			if when == "after us" {
				w.strictPaths()
			}
			w.neighbours()
			for _, from := range w.hosts() {
				w.bothWays(from, 3<<20)
			}
			for _, network := range []string{"udp", "tcp"} {
				for _, server := range []netip.Addr{lab.Google, lab.GoogleV6} {
					if a := lab.Addresses(w.ask("www.google.com", lab.Question{Server: server, Net: network})); len(a) != 1 || !lab.IsAbroad(a[0]) || a[0] == lab.ForgedV4 {
						t.Errorf("www.google.com over %s at %s: %v", network, server, a)
					}
				}
			}
			for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
				if pong, err := w.Client.Ping(w.context(5*time.Second), lab.Ping{To: to, Size: 1450, DF: true}); err != nil || !pong.TooBig() {
					t.Errorf("1450 B to %s: %+v, %v", to, pong, err)
				}
				if pong, err := w.Client.Ping(w.context(5*time.Second), lab.Ping{To: to, TTL: 1}); err != nil || !pong.TimeExceeded() {
					t.Errorf("TTL 1 to %s: %+v, %v", to, pong, err)
				}
			}
			for _, row := range []struct{ from, to netip.Addr }{
				{guest[true], lab.UplinkV4}, {guest[false], lab.UplinkV6}, {guest[true], lab.ClientV4}, {guest[false], lab.ClientV6},
				{lab.HomeWebV4, lab.UplinkV4}, {lab.HomeWebV6, lab.ClientV6},
				{lab.FarV4, lab.TunnelV4}, {lab.FarV6, lab.TunnelV6}, {guest[true], lab.TunnelV4}, {guest[false], lab.TunnelV6},
			} {
				if err := w.comesIn(row.from, row.to); err != nil {
					t.Errorf("%s to %s: %v", row.from, row.to, err)
				}
			}
			w.noLeaks()
			w.notDropped("firewalld")
		})
	}
}

// notDropped checks that no counter of a table with drop rules counted.
func (w *world) notDropped(table string) {
	w.t.Helper()
	out, err := w.Gateway.Exec(w.context(5*time.Second), "nft", "list", "table", "inet", table)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "drop") && !strings.Contains(line, "packets 0 ") {
			w.t.Errorf("dropped: %s", line)
		}
	}
}

// advertise makes the ISP say that it is a router, as it does every few minutes
// (RFC 4861 section 4.2: hop limit 64, a lifetime of 1800 s).
func (w *world) advertise() {
	w.t.Helper()
	err := w.ISP.Do(func() error {
		i, err := net.InterfaceByName("gw0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		ra := []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
		return unix.Sendto(fd, ra, 0, &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(i.Index)})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// advertised is an uplink whose default route is the ISP's advertisement.
func advertised(t *testing.T) *world {
	w := newWorld(t)
	if err := errors.Join(
		w.Gateway.SetForwarding(false),
		w.Gateway.SetSysctl("net/ipv6/conf/wan0/accept_ra", "1"),
		w.Gateway.DeleteRoute(lab.Route{To: netip.MustParsePrefix("::/0"), Via: lab.RouterV6}),
	); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) defaultRoute6() string {
	w.t.Helper()
	out, err := w.Gateway.Exec(w.context(5*time.Second), "ip", "-6", "route", "show", "default")
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) hasAdvertisedRoute() error {
	if s := w.defaultRoute6(); !strings.Contains(s, "dev wan0 proto ra") {
		return fmt.Errorf("the default routes are %q", s)
	}
	return nil
}

// An uplink that learns its v6 default route from router advertisements keeps
// it when we turn v6 forwarding on, and a route that is advertised later is
// followed.
func TestAdvertisedDefaultRouteSurvivesForwarding(t *testing.T) {
	t.Run("the control: forwarding alone loses it", func(t *testing.T) {
		w := advertised(t)
		w.advertise()
		w.waitFor("a default route", 5*time.Second, w.hasAdvertisedRoute)
		if err := w.Gateway.SetForwarding(true); err != nil {
			t.Fatal(err)
		}
		w.waitFor("no default route", 5*time.Second, func() error {
			if w.hasAdvertisedRoute() == nil {
				return errors.New("it is there")
			}
			return nil
		})
	})
	t.Run("advertised before the start", func(t *testing.T) {
		w := advertised(t)
		w.advertise()
		w.waitFor("a default route", 5*time.Second, w.hasAdvertisedRoute)
		w.start()
		w.waitUp()
		if err := w.hasAdvertisedRoute(); err != nil {
			t.Error(err)
		}
		for _, from := range w.hosts() {
			w.bothWays(from, 0)
		}
		w.noLeaks()
		if err := w.daemon.Stop(w.context(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"net/ipv6/conf/wan0/accept_ra": "1", "net/ipv6/conf/all/forwarding": "0", "net/ipv4/ip_forward": "0"} {
			if got, err := w.Gateway.Sysctl(key); err != nil || got != want {
				t.Errorf("after the stop %s is %s, want %s (%v)", key, got, want, err)
			}
		}
		if err := w.hasAdvertisedRoute(); err != nil {
			t.Errorf("after the stop: %v", err)
		}
	})
	t.Run("advertised while we run", func(t *testing.T) {
		w := advertised(t)
		w.start()
		w.waitUp()
		if m := w.ask("www.baidu.com", lab.Question{Type: dns.TypeAAAA}); len(lab.Addresses(m)) != 0 {
			t.Errorf("without IPv6 on the uplink: %v", m)
		}
		if err := w.carries(w.Client, lab.AbroadWebV6, "tunnel", 0); err != nil {
			t.Errorf("the tunnel's IPv6: %v", err)
		}
		if err := w.carries(w.Gateway.Namespace, lab.AbroadWebV6, "tunnel", 0); err != nil {
			t.Errorf("the gateway, the tunnel's IPv6: %v", err)
		}
		w.noLeaks()
		w.advertise()
		w.waitFor("the new uplink is used", 10*time.Second, func() error {
			if err := w.hasAdvertisedRoute(); err != nil {
				return err
			}
			if m := w.ask("www.baidu.com", lab.Question{Type: dns.TypeAAAA}); len(lab.Addresses(m)) == 0 {
				return errors.New("no AAAA yet")
			}
			return w.carries(w.Client, lab.HomeWebV6, "direct", 0)
		})
		for _, from := range w.hosts() {
			w.bothWays(from, 0)
		}
		w.noLeaks()
	})
}
