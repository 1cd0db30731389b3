package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// A Gate is a chain of somebody else's that drops what is forwarded unless it
// knows it: a policy of drop, or a last rule that drops or rejects everything.
// Our accept does not overrule it. One with the tunnel's name in its table is
// taken to let it through.
type Gate struct {
	Family, Table, Chain string
	tunnel               routing.Path
	lan                  []string
}

// nfDrop is NF_DROP of linux/netfilter.h.
const nfDrop = 0

// Fix returns the commands that let the LAN into the tunnel, and its answers
// out.
func (g Gate) Fix() []string {
	at := fmt.Sprintf("nft insert rule %s %s %s", g.Family, g.Table, g.Chain)
	lan := `"` + strings.Join(g.lan, `", "`) + `"`
	return []string{
		fmt.Sprintf(`%s iifname { %s } oifname "%s" accept`, at, lan, g.tunnel),
		fmt.Sprintf(`%s iifname "%s" ct state established,related accept`, at, g.tunnel),
	}
}

func (g Gate) String() string { return g.Family + " " + g.Table + " " + g.Chain }

// Gates returns the gates between the LAN interfaces and a tunnel.
func (t *Table) Gates(ctx context.Context, tunnel routing.Path, lan []string) ([]Gate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	gates, err := t.marks.gates(tunnel)
	if err != nil {
		return nil, explain("reading the chains of others", err)
	}
	for i := range gates {
		gates[i].lan = lan
	}
	return gates, nil
}

// forwardChain is a chain at the forward hook, as it is being read.
type forwardChain struct {
	Gate
	drops bool // its policy does
	last  []byte
	named bool // a rule has the tunnel's name in it
}

func (r *reader) gates(tunnel routing.Path) ([]Gate, error) {
	var chains []forwardChain
	err := r.dumpAll(unix.NFT_MSG_GETCHAIN, func() { chains = nil }, func(family uint8, b []byte) {
		h := find(b, unix.NFTA_CHAIN_HOOK)
		name := familyName(family)
		if h == nil || name == "" || be32(find(h, unix.NFTA_HOOK_HOOKNUM)) != unix.NF_INET_FORWARD || text(find(b, unix.NFTA_CHAIN_TYPE)) != "filter" {
			return
		}
		g := Gate{Family: name, Table: text(find(b, unix.NFTA_CHAIN_TABLE)), Chain: text(find(b, unix.NFTA_CHAIN_NAME)), tunnel: tunnel}
		if g.Table != TableName {
			policy := find(b, unix.NFTA_CHAIN_POLICY)
			chains = append(chains, forwardChain{Gate: g, drops: policy != nil && be32(policy) == nfDrop})
		}
	})
	if err != nil || len(chains) == 0 {
		return nil, err
	}
	device := append([]byte(tunnel), 0)
	err = r.dumpAll(unix.NFT_MSG_GETRULE, func() {}, func(family uint8, b []byte) {
		table, chain := text(find(b, unix.NFTA_RULE_TABLE)), text(find(b, unix.NFTA_RULE_CHAIN))
		expressions := find(b, unix.NFTA_RULE_EXPRESSIONS)
		for i := range chains {
			c := &chains[i]
			if c.Family != familyName(family) || c.Table != table {
				continue
			}
			if c.Chain == chain {
				c.last = slices.Clone(expressions)
			}
			// Firewalls jump to chains of their own for each interface.
			c.named = c.named || bytes.Contains(expressions, device)
		}
	})
	var gates []Gate
	for _, c := range chains {
		if !c.named && (c.drops || dropsAll(c.last)) {
			gates = append(gates, c.Gate)
		}
	}
	return gates, err
}

// dropsAll reports whether a rule's expressions drop or reject every packet.
func dropsAll(expressions []byte) bool {
	drops, all := false, true
	attributes(expressions, func(typ uint16, e []byte) bool {
		if typ != unix.NFTA_LIST_ELEM {
			return true
		}
		switch text(find(e, unix.NFTA_EXPR_NAME)) {
		case "counter", "log", "limit":
		case "reject":
			drops = true
		case "immediate":
			data := find(find(e, unix.NFTA_EXPR_DATA), unix.NFTA_IMMEDIATE_DATA)
			code := find(find(data, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CODE)
			drops = drops || code != nil && be32(code) == nfDrop
		default:
			all = false
		}
		return true
	})
	return drops && all
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
