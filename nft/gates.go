package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// A Gate is a chain of somebody else's that drops what we let through: our
// accept does not overrule it. What a chain does with a packet that it asks too
// much about is not known, and then it is no gate.
type Gate struct {
	Family, Table, Chain string
	By                   string   // the chain of the same table that says drop, mostly another one
	Links                []string // by which the packets come, sorted
	Ports                []uint16 // of this host, that they are for, sorted; nil: they are forwarded
	Protocols            []string // of them: "tcp", "udp"
	fix                  []string
}

// Fix returns the commands that open it.
func (g Gate) Fix() []string { return g.fix }

func (g Gate) String() string { return g.Family + " " + g.Table + " " + g.Chain }

// A Client is one of a LAN: the interface that it comes by, an address of its,
// and this host's own in the same prefix.
type Client struct {
	Link     string
	Index    int
	Addr, Us netip.Addr
}

// A Port is one at which clients ask us.
type Port struct {
	Number     uint16
	Redirected bool // by us, from port 53 of other servers
}

// Gates returns the gates between the LAN and a tunnel.
func (t *Table) Gates(ctx context.Context, tunnel routing.Path, lan []Client) ([]Gate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var visits []visit
	for _, c := range lan {
		visits = append(visits, forwarded(c, device{name: string(tunnel)}, protoOf(c.Us)))
	}
	gates, err := t.marks.gates(unix.NF_INET_FORWARD, visits)
	for i := range gates {
		g := &gates[i]
		g.fix = []string{
			fmt.Sprintf(`%s iifname { %s } oifname "%s" accept`, g.insert(), quoted(g.Links), tunnel),
			fmt.Sprintf(`%s iifname "%s" ct state established,related accept`, g.insert(), tunnel),
		}
	}
	return gates, explain("reading the chains of others", err)
}

// InputGates returns the gates between the LAN and the ports at which its clients
// ask us, over UDP and TCP.
func (t *Table) InputGates(ctx context.Context, lan []Client, ports []Port) ([]Gate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var visits []visit
	for _, c := range lan {
		for _, p := range ports {
			for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				visits = append(visits, arrival(c, p, protocol))
			}
		}
	}
	gates, err := t.marks.gates(unix.NF_INET_LOCAL_IN, visits)
	for i := range gates {
		g := &gates[i]
		g.fix = []string{fmt.Sprintf("%s iifname { %s } meta l4proto { tcp, udp } th dport { %s } accept",
			g.insert(), quoted(g.Links), strings.Trim(strings.ReplaceAll(fmt.Sprint(g.Ports), " ", ", "), "[]"))}
	}
	return gates, explain("reading the chains of others", err)
}

func (g Gate) insert() string {
	return fmt.Sprintf("nft insert rule %s %s %s", g.Family, g.Table, g.Chain)
}

func distinct[T cmp.Ordered](all []T) []T {
	slices.Sort(all)
	return slices.Compact(all)
}

func (v visit) protocolName() string {
	if v.protocol == unix.IPPROTO_TCP {
		return "tcp"
	}
	return "udp"
}

func protoOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// arrival is the first packet of a client to a port of ours.
func arrival(c Client, p Port, protocol byte) visit {
	v := visit{
		in: device{c.Link, c.Index}, family: protoOf(c.Us), from: c.Addr, to: c.Us,
		protocol: protocol, port: p.Number, state: stateUntracked, local: true,
	}
	if p.Redirected {
		v.state, v.status = stateNew, statusDNAT
	}
	return v
}

// forwarded is the first packet of a client to a web server somewhere.
func forwarded(c Client, out device, family uint8) visit {
	v := visit{
		in: device{c.Link, c.Index}, out: out, family: family, from: c.Addr,
		to: netip.AddrFrom4([4]byte{1, 1, 1, 1}), protocol: unix.IPPROTO_TCP, port: 443, state: stateNew,
	}
	if family == unix.NFPROTO_IPV6 {
		v.to = netip.AddrFrom16([16]byte{0x26, 0x06, 0x47, 0, 0x47, 14: 0x11, 15: 0x11})
	}
	return v
}

// gates are the chains at a hook that drop some of the visits for sure.
func (r *reader) gates(hook uint32, visits []visit) ([]Gate, error) {
	if len(visits) == 0 {
		return nil, nil
	}
	chains, err := r.baseChains(hook)
	if err != nil {
		return nil, err
	}
	var gates []Gate
	for _, c := range chains {
		g := Gate{Family: familyName(c.family), Table: c.table, Chain: c.name}
		for _, v := range visits {
			if by, yes := r.drops(c, v); yes {
				g.By = cmp.Or(g.By, by)
				g.Links = append(g.Links, v.in.name)
				if v.local {
					g.Ports, g.Protocols = append(g.Ports, v.port), append(g.Protocols, v.protocolName())
				}
			}
		}
		if len(g.Links) == 0 {
			continue
		}
		g.Links, g.Ports, g.Protocols = distinct(g.Links), distinct(g.Ports), distinct(g.Protocols)
		gates = append(gates, g)
	}
	return gates, nil
}

// baseChains reads the chains of others that filter at a hook, with all that they
// may jump to.
func (r *reader) baseChains(hook uint32) ([]*baseChain, error) {
	var chains []*baseChain
	err := r.dumpAll(unix.NFT_MSG_GETCHAIN, func() { chains = nil }, func(family uint8, b []byte) {
		h := find(b, unix.NFTA_CHAIN_HOOK)
		if h == nil || familyName(family) == "" || be32(find(h, unix.NFTA_HOOK_HOOKNUM)) != hook || text(find(b, unix.NFTA_CHAIN_TYPE)) != "filter" {
			return
		}
		c := &baseChain{family: family, table: text(find(b, unix.NFTA_CHAIN_TABLE)), name: text(find(b, unix.NFTA_CHAIN_NAME))}
		if c.table != TableName {
			policy := find(b, unix.NFTA_CHAIN_POLICY)
			c.drops = policy != nil && be32(policy) == verdictDrop
			chains = append(chains, c)
		}
	})
	if err != nil || len(chains) == 0 {
		return nil, err
	}
	// each calls f with the chains that share a table.
	each := func(family uint8, table string, f func(*baseChain)) {
		for _, c := range chains {
			if c.family == family && c.table == table {
				f(c)
			}
		}
	}
	err = r.dumpAll(unix.NFT_MSG_GETSET, func() {
		for _, c := range chains {
			c.keys = map[string]int{}
		}
	}, func(family uint8, b []byte) {
		each(family, text(find(b, unix.NFTA_SET_TABLE)), func(c *baseChain) {
			c.keys[text(find(b, unix.NFTA_SET_NAME))] = int(be32(find(b, unix.NFTA_SET_KEY_LEN)))
		})
	})
	if err != nil {
		return nil, err
	}
	err = r.dumpAll(unix.NFT_MSG_GETRULE, func() {
		for _, c := range chains {
			c.rules = map[string][][]byte{}
		}
	}, func(family uint8, b []byte) {
		each(family, text(find(b, unix.NFTA_RULE_TABLE)), func(c *baseChain) {
			chain := text(find(b, unix.NFTA_RULE_CHAIN))
			c.rules[chain] = append(c.rules[chain], slices.Clone(find(b, unix.NFTA_RULE_EXPRESSIONS)))
		})
	})
	return chains, err
}

// dumpAll dumps objects of every table of every family.
func (r *reader) dumpAll(typ uint16, begin func(), each func(family uint8, body []byte)) error {
	var err error
	for range 10 {
		begin()
		err = r.c.dump(&r.m, func(m *messages) {
			m.begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
			m.end()
		}, func(_ uint16, body []byte) error {
			if len(body) >= genLen {
				each(body[0], body[genLen:])
			}
			return nil
		})
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

func familyName(f uint8) string {
	switch f {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return ""
}
