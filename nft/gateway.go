package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Gateway is what is done for, and to, the clients of the LAN beside giving
// their flows a path. The zero value is nothing.
type Gateway struct {
	Clients     []ClientRule // first match wins
	Bypass      Bypass
	Masquerade4 bool // what is forwarded to an uplink leaves with that one's address
	Masquerade6 bool
	// Offload are the interfaces between which the kernel's flowtable carries
	// flows that go direct, past all other chains. They must be there. Nil: none.
	Offload []string
}

// ClientRule sends all that some clients send to public addresses one way.
type ClientRule struct {
	Prefixes []netip.Prefix
	MACs     []routing.MAC
	Via      routing.Path
	Text     string // how people find the line, for example "clients[0]"
}

// Bypass says what happens to DNS that LAN clients send past us, encrypted.
type Bypass struct {
	Reject bool           // DNS over TLS and QUIC to anybody, and HTTPS to these:
	DoH    []netip.Prefix // public servers of DNS over HTTPS
}

// Names of ours that Gateway needs.
const (
	setDoH       = "doh_servers"
	chainClients = "classify_client"
	chainBypass  = "bypass"
	chainOffload = "offload"
	countBypass  = "bypass"
	flowtable    = "direct"
)

const portTLS = 853 // of DNS over TLS and over QUIC (RFC 7858, RFC 9250)

func clientSet(i int) string { return fmt.Sprintf("clients_%d", i) }

// decides is the chain that decides flows that came in.
func (r Ruleset) decides() string {
	if len(r.Gateway.Clients) > 0 {
		return chainClients
	}
	return chainDecide
}

// gatewayChains are the chains that Gateway asks for.
func (r Ruleset) gatewayChains() []chain {
	var out []chain
	if len(r.Gateway.Clients) > 0 {
		out = append(out, r.classifyClients())
	}
	if r.Gateway.Bypass.Reject {
		out = append(out, r.bypass())
	}
	if len(r.Gateway.Offload) > 0 {
		out = append(out, r.offload())
	}
	return out
}

// classifyClients comes before classify, where no mark and no list decides
// about a client that has a path of its own. What is local is everybody's.
func (r Ruleset) classifyClients() chain {
	c := chain{name: chainClients, about: "which way a new flow of a client with a path of its own goes"}
	c.rules = rules(on(toType(local()), ret()), on(toType(broadcast()), ret()))
	for _, f := range families() {
		c.rules = append(c.rules, on(f.to(setLocal), goTo(chainDecide)).because("as everybody's"))
	}
	for i, l := range r.Gateway.Clients {
		for _, f := range families() {
			if slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return familyOf(p.Addr()) == f }) {
				c.rules = append(c.rules, on(f.from(clientSet(i)), goTo(newChain(l.Via))).because(l.Text))
			}
		}
		if len(l.MACs) > 0 {
			c.rules = append(c.rules, on(fromMAC(clientSet(i)+"_mac"), goTo(newChain(l.Via))).because(l.Text))
		}
	}
	c.rules = append(c.rules, on(goTo(chainDecide)))
	return c
}

// fromMAC matches packets that came in over Ethernet from a MAC of the set.
func fromMAC(set string) term {
	const ethernet = 1 // ARPHRD_ETHER
	return term{"ether saddr @" + set, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: reg}, equal(binary.NativeEndian.AppendUint16(nil, ethernet)),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: reg, SetName: set},
	}}
}

// bypass rejects, at once, what would be answered past us: clients then ask the
// server that they were told, which is us. What this host sends does not pass
// here, nor what is sent to it.
func (r Ruleset) bypass() chain {
	c := chain{name: chainBypass, base: &hook{"filter", "forward", unix.NF_INET_FORWARD, -10, "filter - 10"},
		about: "LAN clients do not ask other servers past us"}
	for _, p := range []struct {
		protocol
		tls, https string
		answer     term
	}{{tcp(), "DNS over TLS", "DNS over HTTPS", rejectTCP()}, {udp(), "DNS over QUIC", "the same over HTTP/3", reject()}} {
		for _, f := range families() {
			c.rules = append(c.rules,
				on(p.dport(portTLS), in().among(setLANIfs), f.notTo(setLocal), count(countBypass), p.answer).because(p.tls),
				on(p.dport(443), f.to(setDoH), in().among(setLANIfs), f.notTo(setLocal), count(countBypass), p.answer).because(p.https))
		}
	}
	return c
}

// masqueraded gives what is forwarded to an uplink that one's address. The
// kernel asks the chains of all tables in turn until one has translated a flow:
// it is never done twice.
func (r Ruleset) masqueraded() []rule {
	var all []rule
	for _, f := range families() {
		if f == v4() && r.Gateway.Masquerade4 || f == v6() && r.Gateway.Masquerade6 {
			all = append(all,
				on(out().among(setUplinks), f.to(setLAN), ret()),
				on(out().among(setUplinks), f.only(), notFromType(local()), masquerade()).because("[routing] masquerade"))
		}
	}
	return all
}

// gatewaySets are the sets that Gateway asks for.
func (r Ruleset) gatewaySets() []set {
	var out []set
	for i, l := range r.Gateway.Clients {
		for _, s := range static(clientSet(i), l.Prefixes) {
			if len(s.ranges) > 0 {
				out = append(out, s)
			}
		}
		if len(l.MACs) > 0 {
			out = append(out, set{name: clientSet(i) + "_mac", kind: macs(), macs: sortedMACs(l.MACs)})
		}
	}
	if r.Gateway.Bypass.Reject {
		out = append(out, static(setDoH, r.Gateway.Bypass.DoH)...)
	}
	return out
}

func macs() setKind { return setKind{"ether_addr", 9, 6, family{}} }

func sortedMACs(all []routing.MAC) []routing.MAC {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b routing.MAC) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

// checkGateway reports a client without a path, and an interface name that is
// none.
func (r Ruleset) checkGateway() error {
	for _, l := range r.Gateway.Clients {
		if err := r.checkPath(l.Via); err != nil {
			return fmt.Errorf("%s: %w", l.Text, err)
		}
	}
	for _, n := range r.Gateway.Offload {
		if !isInterfaceName(n) {
			return fmt.Errorf("%q is not an interface name", n)
		}
	}
	return nil
}
