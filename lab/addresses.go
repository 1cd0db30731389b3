package lab

import "net/netip"

// The hosts' addresses. See the drawing in the package comment.
var (
	ClientV4 = netip.MustParseAddr("192.168.8.20")
	ClientV6 = netip.MustParseAddr("fd00:8::20")
	LANV4    = netip.MustParseAddr("192.168.8.1") // the gateway's, on lan0
	LANV6    = netip.MustParseAddr("fd00:8::1")
	BoxV4    = netip.MustParseAddr("172.30.0.2")
	BoxV6    = netip.MustParseAddr("fd00:30::2")
	UplinkV4 = netip.MustParseAddr("192.0.2.2") // the gateway's, on wan0
	UplinkV6 = netip.MustParseAddr("2001:db8:2::2")
	RouterV4 = netip.MustParseAddr("192.0.2.1") // the ISP's, the gateway's next hop
	RouterV6 = netip.MustParseAddr("2001:db8:2::1")
	TunnelV4 = netip.MustParseAddr("10.9.0.2") // the gateway's, on wg0
	TunnelV6 = netip.MustParseAddr("fd09::2")
	FarV4    = netip.MustParseAddr("10.9.0.1") // the far end's, inside the tunnel
	FarV6    = netip.MustParseAddr("fd09::1")
	Endpoint = netip.MustParseAddrPort("45.76.1.2:51820")

	// Those of the second tunnel, where AddFarEnd makes one.
	SecondV4       = netip.MustParseAddr("10.10.0.2") // the gateway's, on wg1
	SecondV6       = netip.MustParseAddr("fd10::2")
	SecondEndpoint = netip.MustParseAddrPort("45.77.1.2:51820")
)

// Addresses of servers.
var (
	HomeWebV4   = netip.MustParseAddr("39.156.66.10") // www.baidu.com
	HomeWebV6   = netip.MustParseAddr("2400:da00::66:10")
	AbroadWebV4 = netip.MustParseAddr("93.184.216.34") // www.example.com
	AbroadWebV6 = netip.MustParseAddr("2606:2800:220:1:248:1893:25c8:1946")

	AliDNS     = netip.MustParseAddr("223.5.5.5")
	DNSPod     = netip.MustParseAddr("119.29.29.29")
	AliDNSV6   = netip.MustParseAddr("2400:3200::1")
	Google     = netip.MustParseAddr("8.8.8.8")
	GoogleV6   = netip.MustParseAddr("2001:4860:4860::8888")
	Cloudflare = netip.MustParseAddr("1.1.1.1")

	// ForgedV4 and ForgedV6 are what poisoned names resolve to.
	ForgedV4 = netip.MustParseAddr("203.98.7.65")
	ForgedV6 = netip.MustParseAddr("2001::1f0d:5e01")
)

// homePrefixes and abroadPrefixes are whole ranges of servers: every address in
// them listens (see servers.go).
var (
	homePrefixes = []netip.Prefix{
		netip.MustParsePrefix("39.156.0.0/16"),
		netip.MustParsePrefix("2400:da00::/32"),
	}
	abroadPrefixes = []netip.Prefix{
		netip.MustParsePrefix("93.184.0.0/16"),
		netip.MustParsePrefix("142.250.0.0/15"),
		netip.MustParsePrefix("157.240.0.0/16"),
		netip.MustParsePrefix("203.98.7.0/24"), // where the forged answers point
		netip.MustParsePrefix("2606:2800::/32"),
		netip.MustParsePrefix("2607:f8b0::/32"),
		netip.MustParsePrefix("2a03:2880::/32"),
	}
	domesticDNS = []netip.Addr{AliDNS, DNSPod, AliDNSV6}
	worldDNS    = []netip.Addr{Google, Cloudflare, GoogleV6}
)

// IsHome reports whether a is one of the lab's servers at home.
func IsHome(a netip.Addr) bool { return within(homePrefixes, a) }

// IsAbroad reports whether a is one of the lab's servers abroad.
func IsAbroad(a netip.Addr) bool { return within(abroadPrefixes, a) }

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
