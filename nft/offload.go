package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Attributes of a flowtable and of its hook, from linux/netfilter/nf_tables.h.
const (
	flowtableHook     = 3 // NFTA_FLOWTABLE_HOOK
	flowtableHookNum  = 1 // NFTA_FLOWTABLE_HOOK_NUM
	flowtablePriority = 2 // NFTA_FLOWTABLE_HOOK_PRIORITY
	flowtableDevices  = 3 // NFTA_FLOWTABLE_HOOK_DEVS
	deviceName        = 1 // NFTA_DEVICE_NAME

	ingress = 0 // NF_NETDEV_INGRESS
)

// offload hands flows that go direct to the kernel's flowtable, after whoever
// filters forwarded packets has let them through both ways. Those of a tunnel
// stay with our chains, and so do those that go direct until a tunnel is back.
func (r Ruleset) offload() chain {
	c := chain{name: chainOffload, base: &hook{"filter", "forward", unix.NF_INET_FORWARD, 10, "filter + 10"},
		about: "the kernel carries direct flows past all other chains"}
	for _, p := range []protocol{tcp(), udp()} {
		c.rules = append(c.rules, on(r.flow().is(r.direct()), p.only(), isEstablished(), offloaded()))
	}
	return c
}

func isEstablished() term { return ctState("established", 1<<1) } // NF_CT_STATE_BIT(IP_CT_ESTABLISHED)

func offloaded() term {
	return term{"flow add @" + flowtable, []expr.Any{&expr.FlowOffload{Name: flowtable}}}
}

// flowtableText is the flowtable as nft -f reads it.
func flowtableText(devices []string) string {
	return fmt.Sprintf("flowtable %s {\n\thook ingress priority filter\n\tdevices = { %s }\n}\n", flowtable, quoted(devices))
}

func quoted(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, fmt.Sprintf("%q", n))
	}
	return strings.Join(all, ", ")
}

func addFlowtable(devices []string) step {
	text := fmt.Sprintf("nft add flowtable inet %s %s { hook ingress priority filter; devices = { %s }; }", TableName, flowtable, quoted(devices))
	return step{text, func(m *messages) { newFlowtable(m, TableName, devices) }}
}

func deleteFlowtable() step {
	return step{fmt.Sprintf("nft delete flowtable inet %s %s", TableName, flowtable), func(m *messages) {
		deleteNamed(m, unix.NFT_MSG_DELFLOWTABLE, flowtableTable, flowtableName, flowtable)
	}}
}

func newFlowtable(m *messages, table string, devices []string) {
	m.nft(unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE)
	m.str(flowtableTable, table)
	m.str(flowtableName, flowtable)
	at := m.nest(flowtableHook)
	m.u32(flowtableHookNum, ingress)
	m.u32(flowtablePriority, 0)
	list := m.nest(flowtableDevices)
	for _, d := range devices {
		m.str(deviceName, d)
	}
	m.close(list)
	m.close(at)
	m.end()
}

// flowtable reads the interfaces of our flowtable, sorted: nil without one.
func (r *reader) flowtable() (devices []string, err error) {
	err = r.ask(unix.NFT_MSG_GETFLOWTABLE, flowtableTable, func() { devices = nil }, func(b []byte) error {
		if text(find(b, flowtableName)) != flowtable {
			return nil
		}
		devices = []string{}
		attributes(find(find(b, flowtableHook), flowtableDevices), func(typ uint16, v []byte) bool {
			if typ == deviceName {
				devices = append(devices, text(v))
			}
			return true
		})
		return nil
	})
	slices.Sort(devices)
	return devices, err
}

// CanOffload reports whether this kernel has flowtables. It tries one in a
// table that is gone in the same transaction.
func (t *Table) CanOffload(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	const table = TableName + "-probe"
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.owner.transact(&t.m, func(m *messages) {
		m.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
		m.str(unix.NFTA_TABLE_NAME, table)
		m.end()
		newFlowtable(m, table, []string{"lo"})
		m.nft(unix.NFT_MSG_DELTABLE, 0)
		m.str(unix.NFTA_TABLE_NAME, table)
		m.end()
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, explain("trying a flowtable", err)
}
