package nft_test

import (
	"net/netip"

	"smartdns/nft"
	"smartdns/routing"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// gateway is a host with a LAN, one uplink and one tunnel that is up.
func gateway() nft.Ruleset {
	return nft.Ruleset{
		Field: routing.DefaultField,
		Tunnels: []nft.Tunnel{{
			Path: "wg0", Mark: routing.DefaultField.Tunnel(0), Up: true, MTU: 1420,
			Addresses: prefixes("10.9.0.2/32", "fd09::2/128"),
			Own:       prefixes("10.9.0.1/32", "10.9.0.0/24"),
		}},
		Interfaces: nft.Interfaces{LAN: []string{"lan0"}, Uplinks: []string{"wan0"}, Forwarding4: true, Forwarding6: true},
		Addresses: nft.Addresses{
			LAN:  prefixes("192.168.8.0/24", "fd08::/64"),
			Home: prefixes("39.156.0.0/16", "2408:8000::/20"),
		},
		Decide: nft.Decide{
			Rules: []nft.AddressRule{
				{Match: nft.Match{Kind: nft.MatchPrivate}, Via: routing.Direct, Text: "addresses[0]"},
				{Match: nft.Match{Kind: nft.MatchHome}, Via: routing.Direct, Text: "addresses[0]"},
			},
			Default: "wg0",
		},
		DNS: nft.DNS{
			Listen:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("192.168.8.1:53")},
			Redirect: 5300,
		},
		SetSize: 4096,
	}
}

// host is a machine with one tunnel that serves nobody else.
func host() nft.Ruleset {
	r := gateway()
	r.Interfaces = nft.Interfaces{Uplinks: []string{"wan0"}, Skip: []string{"tailscale0"}}
	r.Addresses.LAN = nil
	r.DNS = nft.DNS{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}}
	return r
}

// v4Tunnel is a gateway whose tunnel carries no IPv6, on a host that forwarded
// IPv4 before us.
func v4Tunnel() nft.Ruleset {
	r := gateway()
	r.Tunnels[0].NoIPv6 = true
	r.Tunnels[0].Addresses = prefixes("10.9.0.2/32")
	r.Interfaces.Forwarding4 = false
	return r
}

// twoTunnels has lines of the file of every kind, one tunnel down and blocked,
// the other detoured.
func twoTunnels() nft.Ruleset {
	r := gateway()
	r.Tunnels[0].Up = false
	r.Tunnels = append(r.Tunnels, nft.Tunnel{
		Path: "office", Mark: routing.DefaultField.Tunnel(1), StandIn: routing.Direct, Inbound: nft.InboundAllow, MTU: 1380,
		Addresses: prefixes("10.20.0.7/24"), Own: prefixes("10.20.0.0/16"),
	})
	r.Addresses.Lists = []nft.List{{Name: "office-nets", Prefixes: prefixes("203.0.113.0/25", "203.0.113.128/25", "198.51.100.7/32")}}
	r.Decide.Rules = append([]nft.AddressRule{
		{Match: nft.Match{Kind: nft.MatchPrefix, Prefix: netip.MustParsePrefix("192.0.2.0/24")}, Via: "office", Text: "addresses[0]"},
		{Match: nft.Match{Kind: nft.MatchList, List: "office-nets"}, Via: "office", Text: "addresses[1]"},
	}, r.Decide.Rules...)
	return r
}

// defaultDirect sends only marked addresses into the tunnel.
func defaultDirect() nft.Ruleset {
	r := host()
	r.Decide = nft.Decide{Default: routing.Direct}
	return r
}

// strict is gateway with the kill switch.
func strict() nft.Ruleset {
	r := gateway()
	r.KillSwitch = nft.KillSwitch{Level: nft.Strict, Near: prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")}
	return r
}

// lockdown is what is left of it while nobody decides.
func lockdown() nft.Ruleset {
	r := strict()
	r.KillSwitch.Level = nft.Lockdown
	// Without what is the tunnel's: 10.9.0.0/24.
	r.KillSwitch.Near = prefixes("192.168.0.0/16", "172.16.0.0/12", "fe80::/10", "fd08::/64")
	r.Addresses, r.DNS, r.Interfaces.Uplinks = nft.Addresses{}, nft.DNS{}, nil
	r.Tunnels[0].Up = false
	return r
}

// clients is a gateway with all that is done for its clients, and to them.
func clients() nft.Ruleset {
	r := gateway()
	r.Gateway = nft.Gateway{
		Clients: []nft.ClientRule{
			{MACs: []routing.MAC{{2, 0, 0, 0, 0, 0x20}, {2, 0, 0, 0, 0, 9}}, Via: "wg0", Text: "clients[0]"},
			{Prefixes: prefixes("192.168.8.20/32", "192.168.8.64/26", "fd08::20/128"), Via: routing.Direct, Text: "clients[1]"},
			{Prefixes: prefixes("192.168.8.0/24"), Via: "wg0", Text: "clients[2]"},
		},
		Bypass:      nft.Bypass{Reject: true, DoH: prefixes(foreign4+"/32", foreign6+"/128")},
		Masquerade4: true, Masquerade6: true,
	}
	return r
}

func rulesets() map[string]nft.Ruleset {
	return map[string]nft.Ruleset{
		"gateway": gateway(), "host": host(), "two-tunnels": twoTunnels(), "default-direct": defaultDirect(), "v4-tunnel": v4Tunnel(), "stand-in": standIn(false, "wg1"),
		"one-armed": oneArmed(), "strict": strict(), "lockdown": lockdown(), "clients": clients(),
		"no-tunnel": {Interfaces: nft.Interfaces{Uplinks: []string{"wan0"}}},
	}
}
