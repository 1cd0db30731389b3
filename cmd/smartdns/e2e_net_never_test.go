package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// special are the prefixes of SECURITY 6.3, none of whose addresses is ever
// marked.
var special = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"255.255.255.255/32",
	"::/128", "::1/128", "100::/64", "2001::/32", "2001:db8::/32", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
}

// carriedPublic are v6 addresses in which a public v4 address is: 93.184.216.34
// as v4-mapped, of NAT64 (twice) and of 6to4.
var carriedPublic = []netip.Addr{
	netip.MustParseAddr("::ffff:93.184.216.34"), netip.MustParseAddr("64:ff9b::93.184.216.34"),
	netip.MustParseAddr("64:ff9b:1::93.184.216.34"), netip.MustParseAddr("2002:5db8:d822::1"),
}

// samples returns the first, a middle and the last address of p, and of v4
// addresses the v6 ones that carry them.
func samples(p netip.Prefix) []netip.Addr {
	first := p.Addr().AsSlice()
	middle, last := slices.Clone(first), slices.Clone(first)
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		mask := byte(0x80) >> (bit % 8)
		last[bit/8] |= mask
		if bit == p.Bits() || bit%8 == 7 {
			middle[bit/8] |= mask
		}
	}
	var all []netip.Addr
	for _, b := range [][]byte{first, middle, last} {
		a, _ := netip.AddrFromSlice(b)
		all = append(all, a)
		if !a.Is4() {
			continue
		}
		v4 := a.As4()
		mapped, nat64, sixToFour := [16]byte{10: 0xff, 11: 0xff}, [16]byte{1: 0x64, 2: 0xff, 3: 0x9b}, [16]byte{0x20, 0x02, 15: 1}
		copy(mapped[12:], v4[:])
		copy(nat64[12:], v4[:])
		copy(sixToFour[2:], v4[:])
		all = append(all, netip.AddrFrom16(mapped), netip.AddrFrom16(nat64), netip.AddrFrom16(sixToFour))
	}
	return all
}

// evilName is a name that returns addresses to pull them somewhere, beside one
// good one of each family, to show that the answer is used at all.
type evilName struct {
	name         string
	v4, v6       []netip.Addr
	good4, good6 netip.Addr
}

// zone is the name's records, also as hints of HTTPS.
func (e evilName) zone() string {
	var b strings.Builder
	hint := func(key string, all []netip.Addr) string {
		var s []string
		for _, a := range all {
			if a.Is4In6() {
				continue // not of these: a zone file cannot say it
			}
			s = append(s, a.String())
		}
		return key + "=" + strings.Join(s, ",")
	}
	for _, a := range append(e.v4, e.good4) {
		fmt.Fprintf(&b, "%s. A %s\n", e.name, a)
	}
	for _, a := range append(e.v6, e.good6) {
		fmt.Fprintf(&b, "%s. AAAA %s\n", e.name, a)
	}
	fmt.Fprintf(&b, "%s. HTTPS 1 . %s %s\n", e.name, hint("ipv4hint", append(e.v4, e.good4)), hint("ipv6hint", append(e.v6, e.good6)))
	return b.String()
}

// evil makes a name in a family of the lab's (foreign or cn) of bad addresses.
func evil(family string, n int, bad []netip.Addr) evilName {
	e := evilName{name: fmt.Sprintf("evil%d.%s.test", n, family), good4: lab.NumberedAddr(6000+n, family == "cn", false), good6: lab.NumberedAddr(6000+n, family == "cn", true)}
	for _, a := range bad {
		if a.Is4() {
			e.v4 = append(e.v4, a)
		} else {
			e.v6 = append(e.v6, a)
		}
	}
	return e
}

// checkEvil asks for every record of the names, twice, and checks that of their
// addresses only the good ones are marked. It returns what was answered.
func (w *world) checkEvil(names []evilName) (answered map[netip.Addr]bool) {
	w.t.Helper()
	answered = map[netip.Addr]bool{}
	for _, e := range names {
		for _, v := range []lab.View{lab.AtHome, lab.Abroad} {
			if err := w.Zone.Add(v, e.zone()); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for range 2 { // fresh, then cached
		for _, e := range names {
			for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
				m := w.ask(e.name, lab.Question{Type: typ, Net: "tcp"})
				all := append(lab.Addresses(m), lab.Hints(m)...)
				for _, a := range all {
					answered[a] = true
				}
				if !slices.Contains(all, e.good4) && !slices.Contains(all, e.good6) {
					w.t.Errorf("%s %s: the good address is not in %v", e.name, dns.TypeToString[typ], m)
				}
			}
		}
	}
	marked := map[netip.Addr]bool{}
	for _, m := range w.marks().Marks {
		marked[m.Addr] = true
	}
	for _, e := range names {
		for _, good := range []netip.Addr{e.good4, e.good6} {
			if !marked[good] {
				w.t.Errorf("%s: the good %s is not marked", e.name, good)
			}
			delete(marked, good)
		}
	}
	for a := range marked {
		w.t.Errorf("%s is marked", a)
	}
	return answered
}

// pinnedBoth pins the addresses of foreign names to the tunnel and those of
// domestic ones to direct: the strongest that a user can say.
func pinnedBoth(c string) string {
	return strings.Replace(c, `ask = "domestic" }`, `ask = "domestic", via = "direct" }`, 1)
}

// impatient waits little for a better answer than a suspicious one: nobody
// forges here.
func impatient(c string) string { return c + "\n[poison]\nhold = \"20ms\"\n" }

// Names that return special addresses, of every prefix and in every disguise,
// by address record and by hint, insert none of them, and their answers do not
// hold them (SECURITY N-05).
func TestSpecialAddressesAreNeverMarked(t *testing.T) {
	w := marksWorld(t, pinnedBoth, impatient)
	var names []evilName
	bad := map[netip.Addr]bool{}
	for i, s := range special {
		all := samples(netip.MustParsePrefix(s))
		for _, a := range all {
			bad[a], bad[a.Unmap()] = true, true
		}
		names = append(names, evil("foreign", i, all), evil("cn", i, all))
	}
	answered := w.checkEvil(names)
	for a := range answered {
		if bad[a] {
			t.Errorf("%s was answered", a)
		}
	}
	if n := w.counter("private addresses stripped from public names"); n < uint64(len(special)) {
		t.Errorf("%d addresses are counted as stripped", n)
	}
}

// A v6 address that carries a public v4 one gets no mark of its own, lest it
// decide about that one.
func TestCarriedAddressesAreNeverMarked(t *testing.T) {
	w := marksWorld(t, pinnedBoth, impatient)
	w.checkEvil([]evilName{evil("foreign", 0, carriedPublic), evil("cn", 0, carriedPublic)})
}

// Names that return addresses that we need ourselves, such as the WireGuard
// endpoint, the upstream servers, gateways and our own, insert none of them:
// handshakes go on, and every server is asked by the path of its side (SECURITY
// N-06, N-20).
func TestCriticalAddressesAreNeverMarked(t *testing.T) {
	w := marksWorld(t, pinnedBoth, impatient)
	critical := []netip.Addr{
		lab.Endpoint.Addr(), lab.AliDNS, lab.DNSPod, lab.Google, lab.Cloudflare,
		lab.RouterV4, lab.RouterV6, lab.UplinkV4, lab.UplinkV6, lab.LANV4, lab.LANV6, lab.TunnelV4, lab.TunnelV6, lab.FarV4,
		lab.ClientV4, lab.ClientV6, lab.BoxV4,
		netip.MustParseAddr("192.168.8.255"), netip.MustParseAddr("192.0.2.255"), netip.MustParseAddr("255.255.255.255"),
	}
	w.DNS.Forget()
	w.checkEvil([]evilName{evil("foreign", 1, critical), evil("cn", 1, critical)})

	if err := w.Gateway.SetTunnel(false); err != nil { // the session is over
		t.Fatal(err)
	}
	tries := 0
	w.waitFor("a new handshake", 10*time.Second, func() error {
		tries++ // of a name of its own, whose failure is in no cache
		m := w.ask(fmt.Sprintf("n%05d.foreign.test", 7000+tries), lab.Question{})
		if len(lab.Addresses(m)) == 0 {
			return fmt.Errorf("%v", m)
		}
		return w.carries(w.Client, lab.Addresses(m)[0], "tunnel", 0)
	})
	for _, name := range []string{"n00500.foreign.test", "n00500.cn.test"} {
		w.resolve(name, 0)
	}
	sides := map[netip.Addr]netip.Addr{lab.AliDNS: lab.UplinkV4, lab.DNSPod: lab.UplinkV4, lab.Google: lab.TunnelV4, lab.Cloudflare: lab.TunnelV4}
	for _, asked := range w.DNS.Asked("") {
		if want := sides[asked.Server]; asked.From.Addr() != want {
			t.Errorf("%s: want it from %s", asked, want)
		}
	}
}
