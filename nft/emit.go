package nft

import (
	"strings"

	"golang.org/x/sys/unix"
)

func tableText(flags uint32) string {
	var words []string
	if flags&flagOwner != 0 {
		words = append(words, "owner")
	}
	if flags&flagPersist != 0 {
		words = append(words, "persist")
	}
	if words == nil {
		return "nft add table inet " + TableName
	}
	return "nft add table inet " + TableName + " { flags " + strings.Join(words, ", ") + "; }"
}

func newTable(m *messages, flags uint32) {
	m.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
	m.str(unix.NFTA_TABLE_NAME, m.name())
	m.u32(unix.NFTA_TABLE_FLAGS, flags)
	m.end()
}

func deleteTable(m *messages) {
	m.nft(unix.NFT_MSG_DELTABLE, 0)
	m.str(unix.NFTA_TABLE_NAME, m.name())
	m.end()
}

func newCounter(m *messages, name string) {
	m.nft(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE)
	m.str(unix.NFTA_OBJ_TABLE, m.name())
	m.str(unix.NFTA_OBJ_NAME, name)
	m.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	at := m.nest(unix.NFTA_OBJ_DATA)
	m.u64(unix.NFTA_COUNTER_BYTES, 0)
	m.u64(unix.NFTA_COUNTER_PACKETS, 0)
	m.close(at)
	m.end()
}

func deleteCounter(m *messages, name string) {
	m.nft(unix.NFT_MSG_DELOBJ, 0)
	m.str(unix.NFTA_OBJ_TABLE, m.name())
	m.str(unix.NFTA_OBJ_NAME, name)
	m.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	m.end()
}

// Names in the user data of sets tell the nft program in which byte order the
// keys are.
const (
	udataKeyByteOrder = 0
	hostOrder         = 1
	networkOrder      = 2

	policyAccept = 1 // NF_ACCEPT
)

func newSet(m *messages, s set) {
	m.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	m.str(unix.NFTA_SET_TABLE, m.name())
	m.str(unix.NFTA_SET_NAME, s.name)
	m.u32(unix.NFTA_SET_FLAGS, s.flags())
	m.u32(unix.NFTA_SET_KEY_TYPE, s.kind.magic)
	m.u32(unix.NFTA_SET_KEY_LEN, s.kind.length)
	m.u32(unix.NFTA_SET_ID, m.n)
	if s.size > 0 {
		at := m.nest(unix.NFTA_SET_DESC)
		m.u32(unix.NFTA_SET_DESC_SIZE, s.size)
		m.close(at)
	}
	order := byte(networkOrder)
	if s.kind == interfaces() {
		order = hostOrder
	}
	m.bytes(unix.NFTA_SET_USERDATA, []byte{udataKeyByteOrder, 4, order, 0, 0, 0})
	m.end()
}

func flushSet(m *messages, name string) {
	m.nft(unix.NFT_MSG_DELSETELEM, 0)
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, m.name())
	m.str(unix.NFTA_SET_ELEM_LIST_SET, name)
	m.end()
}

// newElements adds at most elementsPerMessage static elements.
func newElements(m *messages, s set, part []element) {
	m.nft(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, m.name())
	m.str(unix.NFTA_SET_ELEM_LIST_SET, s.name)
	list := m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, e := range part {
		at := m.nest(unix.NFTA_LIST_ELEM)
		m.key(e.key[:s.kind.length])
		if e.end {
			m.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
		m.close(at)
	}
	m.close(list)
	m.end()
}

func (m *messages) key(k []byte) {
	at := m.nest(unix.NFTA_SET_ELEM_KEY)
	m.bytes(unix.NFTA_DATA_VALUE, k)
	m.close(at)
}

func newChainMessage(m *messages, c chain) {
	m.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	m.str(unix.NFTA_CHAIN_TABLE, m.name())
	m.str(unix.NFTA_CHAIN_NAME, c.name)
	if h := c.base; h != nil {
		at := m.nest(unix.NFTA_CHAIN_HOOK)
		m.u32(unix.NFTA_HOOK_HOOKNUM, h.number)
		m.u32(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))
		m.close(at)
		m.u32(unix.NFTA_CHAIN_POLICY, policyAccept)
		m.str(unix.NFTA_CHAIN_TYPE, h.kind)
	}
	m.end()
}

func flushChain(m *messages, name string) {
	m.nft(unix.NFT_MSG_DELRULE, 0)
	m.str(unix.NFTA_RULE_TABLE, m.name())
	m.str(unix.NFTA_RULE_CHAIN, name)
	m.end()
}

func newRule(m *messages, chain string, r rule) {
	m.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	m.str(unix.NFTA_RULE_TABLE, m.name())
	m.str(unix.NFTA_RULE_CHAIN, chain)
	m.bytes(unix.NFTA_RULE_EXPRESSIONS|nestedBit, r.expressions())
	if u := r.userdata(); u != nil {
		m.bytes(unix.NFTA_RULE_USERDATA, u)
	}
	m.end()
}

// deleteNamed deletes a chain or a set.
func deleteNamed(m *messages, typ, table, attr uint16, name string) {
	m.nft(typ, 0)
	m.str(table, m.name())
	m.str(attr, name)
	m.end()
}
