package nft

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A visit is the first packet of a flow, as far as somebody else's chain may ask
// about it.
type visit struct {
	in, out  device
	family   uint8      // unix.NFPROTO_IPV4 or NFPROTO_IPV6
	from, to netip.Addr // not valid: unknown
	protocol byte       // unix.IPPROTO_UDP or IPPROTO_TCP
	port     uint16
	state    uint32 // bits of stateNew and so on
	status   uint32 // statusDNAT or 0
	local    bool   // to is an address of this host
}

// clientPort is what a client's port is like.
const clientPort = 50_000

// A device is an interface; without a name, one that we do not know.
type device struct {
	name  string
	index int
}

// Bits of a flow's state and status, from linux/netfilter/nf_conntrack_common.h.
const (
	stateNew       = 1 << 3
	stateUntracked = 1 << 6
	statusDNAT     = 1 << 5
)

// ruling is what a rule or a chain says: one of the kernel's codes.
type ruling struct {
	code  int32
	chain string // that a jump or goto leads to
}

// Codes of verdicts, from linux/netfilter.h and nf_tables.h.
const (
	verdictDrop     = 0
	verdictAccept   = 1
	verdictQueue    = 3
	verdictContinue = -1
	verdictBreak    = -2
	verdictJump     = -3
	verdictGoto     = -4
	verdictReturn   = -5
)

// mostSteps bounds the rules that are looked at for one visit.
const mostSteps = 100_000

// baseChain is where a visit begins.
type baseChain struct {
	family      uint8
	table, name string
	drops       bool                // its policy does
	rules       map[string][][]byte // expressions, of every chain of its table
	keys        map[string]int      // bytes, of every set of its table
}

// walker follows a visit through the chains of a table, as the kernel would.
// What it cannot evaluate makes it unsure, never wrong.
type walker struct {
	r      *reader
	base   *baseChain
	visit  visit
	steps  int
	unsure bool   // something may have accepted it
	by     string // the chain that dropped it
}

// drops reports whether a chain surely drops a visit, and in which chain that is
// said.
func (r *reader) drops(c *baseChain, v visit) (by string, yes bool) {
	w := walker{r: r, base: c, visit: v}
	if c.family != unix.NFPROTO_INET && c.family != v.family {
		return "", false
	}
	code := w.chain(c.name, true, 0)
	if code == verdictContinue && c.drops {
		code, w.by = verdictDrop, c.name
	}
	return w.by, code == verdictDrop && !w.unsure
}

// chain returns verdictAccept, verdictDrop, or verdictContinue where the chain
// ends without one. Only a sure walk returns the first two.
func (w *walker) chain(name string, sure bool, depth int) int32 {
	const deepest = 32 // the kernel's is 16
	for _, rule := range w.base.rules[name] {
		if w.steps++; w.steps > mostSteps || depth > deepest {
			w.unsure = true
			return verdictContinue
		}
		v, match := w.rule(rule)
		if match == no {
			continue
		}
		certain := sure && match == yes
		switch v.code {
		case verdictAccept, verdictQueue:
			if certain && v.code == verdictAccept {
				return verdictAccept
			}
			w.unsure = true
		case verdictDrop:
			if certain {
				w.by = name
				return verdictDrop
			}
		case verdictJump, verdictGoto:
			code := w.chain(v.chain, certain, depth+1)
			if code != verdictContinue {
				return code
			}
			if v.code == verdictGoto {
				if match == yes {
					return verdictContinue
				}
				sure = false
			}
		case verdictReturn:
			if match == yes {
				return verdictContinue
			}
			sure = false
		}
	}
	return verdictContinue
}

// answer is whether a rule matches.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

func answered(is bool) answer {
	if is {
		return yes
	}
	return no
}

// registers are those of nf_tables, and which of their bytes are known.
type registers struct {
	bytes [64]byte
	known [64]bool
}

// place is where a register begins: the first four are of 16 bytes, those from
// NFT_REG32_00 on of 4.
func place(register uint32) int {
	switch {
	case register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4:
		return int(register-unix.NFT_REG_1) * 16
	case register >= unix.NFT_REG32_00 && register <= unix.NFT_REG32_15:
		return int(register-unix.NFT_REG32_00) * 4
	}
	return -1
}

// store puts v into a register; nil: something unknown. A short value is followed
// by zeros, as in the kernel.
func (r *registers) store(register uint32, v []byte) {
	at := place(register)
	if at < 0 {
		return
	}
	size := (max(len(v), 1) + 3) &^ 3
	if v == nil {
		size = 16
	}
	for i := at; i < min(at+size, len(r.bytes)); i++ {
		r.bytes[i], r.known[i] = 0, v != nil
		if i-at < len(v) {
			r.bytes[i] = v[i-at]
		}
	}
}

// load returns the n bytes from a register on; ok is false where they are not
// known.
func (r *registers) load(register uint32, n int) (v []byte, ok bool) {
	at := place(register)
	if at < 0 || n <= 0 || at+n > len(r.bytes) || slices.Contains(r.known[at:at+n], false) {
		return nil, false
	}
	return r.bytes[at : at+n], true
}

// rule evaluates expressions: what they say, and whether they match.
func (w *walker) rule(expressions []byte) (v ruling, match answer) {
	v, match = ruling{code: verdictContinue}, yes
	var regs registers
	attributes(expressions, func(typ uint16, e []byte) bool {
		if typ != unix.NFTA_LIST_ELEM {
			return true
		}
		said, m := w.expression(&regs, text(find(e, unix.NFTA_EXPR_NAME)), find(e, unix.NFTA_EXPR_DATA))
		match = min(match, m)
		v = said
		return match != no && (v.code == verdictContinue)
	})
	if v.code == verdictBreak {
		match = no
	}
	return v, match
}

// member asks the kernel about an element of a set: whether it is there, and
// what it is mapped to.
func (w *walker) member(set string, key []byte) (data []byte, match answer) {
	data, err := w.element(set, func(m *messages) {
		at := m.nest(unix.NFTA_SET_ELEM_KEY)
		m.bytes(unix.NFTA_DATA_VALUE, key)
		m.close(at)
	})
	if errors.Is(err, unix.ENOENT) {
		const catchAll = 2 // NFT_SET_ELEM_CATCHALL
		data, err = w.element(set, func(m *messages) { m.u32(unix.NFTA_SET_ELEM_FLAGS, catchAll) })
	}
	switch {
	case err == nil:
		return data, yes
	case errors.Is(err, unix.ENOENT):
		return nil, no
	}
	return nil, maybe
}

// element returns what a set maps the element to that write asks for.
func (w *walker) element(set string, write func(*messages)) (data []byte, err error) {
	err = w.r.c.dump(&w.r.m, func(m *messages) {
		m.begin(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, 0, w.base.family, 0)
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, w.base.table)
		m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		list := m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		at := m.nest(unix.NFTA_LIST_ELEM)
		write(m)
		m.close(at)
		m.close(list)
		m.end()
	}, func(_ uint16, body []byte) error {
		if len(body) >= genLen {
			list := find(body[genLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			data = slices.Clone(find(find(list, unix.NFTA_LIST_ELEM), unix.NFTA_SET_ELEM_DATA))
		}
		return nil
	})
	return data, err
}
