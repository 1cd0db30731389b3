package nft

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Flags and attributes of nf_tables that x/sys does not name.
const (
	flagOwner      = 0x2 // NFT_TABLE_F_OWNER
	flagPersist    = 0x4 // NFT_TABLE_F_PERSIST
	attrTableOwner = 7   // NFTA_TABLE_OWNER
	attrSetCount   = 20  // NFTA_SET_COUNT
)

// A snapshot is what the kernel has of our table.
type snapshot struct {
	exists   bool
	flags    uint32
	owner    uint32 // netlink port of the program that owns the table; 0 = nobody
	sets     map[string]kernelSet
	chains   map[string]kernelChain
	counters map[string]Counter
	offload  []string // interfaces of our flowtable, sorted; nil: there is none
}

// kernelSet is a set as the kernel has it.
type kernelSet struct {
	flags    uint32
	magic    uint32
	length   uint32
	size     uint32
	count    int // -1 = this kernel does not say
	elements []element
}

// kernelChain is a chain as the kernel has it; the hook has no text.
type kernelChain struct {
	base  *hook
	rules []kernelRule
}

// kernelRule is a rule as bytes.
type kernelRule struct {
	exprs    []byte
	userdata []byte
}

// A Counter counts packets since its table was made.
type Counter struct {
	Packets, Bytes uint64
}

// reader asks the kernel about our table. It uses a socket of its own, so it
// never holds up a Mark.
type reader struct {
	c *conn
	m messages
}

// ask dumps objects of our table, again when the ruleset changed meanwhile.
func (r *reader) ask(typ uint16, table uint16, begin func(), each func(body []byte) error) error {
	var err error
	for range 10 {
		begin()
		err = r.c.dump(&r.m, func(m *messages) {
			m.nft(typ, unix.NLM_F_DUMP)
			m.str(table, m.name())
			m.end()
		}, func(_ uint16, body []byte) error {
			if len(body) < genLen || body[0] != unix.NFPROTO_INET || text(find(body[genLen:], table)) != r.m.name() {
				return nil
			}
			return each(body[genLen:])
		})
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

// table reads the table's flags and owner; exists is false without one.
func (r *reader) table() (s snapshot, err error) {
	err = r.c.dump(&r.m, func(m *messages) {
		m.nft(unix.NFT_MSG_GETTABLE, 0)
		m.str(unix.NFTA_TABLE_NAME, m.name())
		m.end()
	}, func(_ uint16, body []byte) error {
		if len(body) >= genLen {
			s.exists = true
			s.flags, s.owner = be32(find(body[genLen:], unix.NFTA_TABLE_FLAGS)), be32(find(body[genLen:], attrTableOwner))
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return s, err
}

// snapshot reads all of the table but the marks, and but the elements that known
// tells.
func (r *reader) snapshot(known contents) (snapshot, error) {
	s, err := r.table()
	if err != nil || !s.exists {
		return s, err
	}
	if s.sets, err = r.sets(); err != nil {
		return s, err
	}
	for name, k := range s.sets {
		if k.flags&unix.NFT_SET_TIMEOUT != 0 {
			continue
		}
		var ok bool
		if k.elements, ok = known.of(name, k); !ok {
			if k.elements, err = r.static(name); err != nil {
				return s, err
			}
		}
		s.sets[name] = k
	}
	if s.chains, err = r.chains(); err != nil {
		return s, err
	}
	if s.offload, err = r.flowtable(); err != nil {
		return s, err
	}
	s.counters, err = r.counters()
	return s, err
}

func (r *reader) sets() (sets map[string]kernelSet, err error) {
	err = r.ask(unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, func() { sets = map[string]kernelSet{} }, func(b []byte) error {
		s := kernelSet{count: -1}
		var name string
		attributes(b, func(typ uint16, v []byte) bool {
			switch typ {
			case unix.NFTA_SET_NAME:
				name = text(v)
			case unix.NFTA_SET_FLAGS:
				s.flags = be32(v)
			case unix.NFTA_SET_KEY_TYPE:
				s.magic = be32(v)
			case unix.NFTA_SET_KEY_LEN:
				s.length = be32(v)
			case unix.NFTA_SET_DESC:
				s.size = be32(find(v, unix.NFTA_SET_DESC_SIZE))
			case attrSetCount:
				s.count = int(be32(v))
			}
			return true
		})
		sets[name] = s
		return nil
	})
	return sets, err
}

func (r *reader) chains() (chains map[string]kernelChain, err error) {
	err = r.ask(unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, func() { chains = map[string]kernelChain{} }, func(b []byte) error {
		var c kernelChain
		if h := find(b, unix.NFTA_CHAIN_HOOK); h != nil {
			c.base = &hook{kind: text(find(b, unix.NFTA_CHAIN_TYPE)), number: be32(find(h, unix.NFTA_HOOK_HOOKNUM)), priority: int32(be32(find(h, unix.NFTA_HOOK_PRIORITY)))}
		}
		chains[text(find(b, unix.NFTA_CHAIN_NAME))] = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = r.ask(unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, func() {
		for name, c := range chains {
			c.rules = nil
			chains[name] = c
		}
	}, func(b []byte) error {
		name := text(find(b, unix.NFTA_RULE_CHAIN))
		c := chains[name]
		c.rules = append(c.rules, kernelRule{slices.Clone(find(b, unix.NFTA_RULE_EXPRESSIONS)), slices.Clone(find(b, unix.NFTA_RULE_USERDATA))})
		chains[name] = c
		return nil
	})
	return chains, err
}

func (r *reader) counters() (counters map[string]Counter, err error) {
	err = r.ask(unix.NFT_MSG_GETOBJ, unix.NFTA_OBJ_TABLE, func() { counters = map[string]Counter{} }, func(b []byte) error {
		if be32(find(b, unix.NFTA_OBJ_TYPE)) == unix.NFT_OBJECT_COUNTER {
			data := find(b, unix.NFTA_OBJ_DATA)
			counters[text(find(b, unix.NFTA_OBJ_NAME))] = Counter{be64(find(data, unix.NFTA_COUNTER_PACKETS)), be64(find(data, unix.NFTA_COUNTER_BYTES))}
		}
		return nil
	})
	return counters, err
}

// elements calls each for every element of a set. A dump that was interrupted
// begins again, so each may see an element twice.
func (r *reader) elements(set string, each func(e element, left time.Duration)) error {
	var err error
	for range 10 {
		if err = r.elementsOnce(set, each); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

// elementsOnce is elements without a second try: with errInterrupted, each may
// have missed some.
func (r *reader) elementsOnce(set string, each func(e element, left time.Duration)) error {
	return r.c.dump(&r.m, func(m *messages) {
		m.nft(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, m.name())
		m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		m.end()
	}, func(_ uint16, body []byte) error {
		if len(body) >= genLen {
			list(body[genLen:], each)
		}
		return nil
	})
}

// list decodes the elements of one message.
func list(b []byte, each func(element, time.Duration)) {
	attributes(find(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, v []byte) bool {
		var e element
		var left time.Duration
		attributes(v, func(typ uint16, v []byte) bool {
			switch typ {
			case unix.NFTA_SET_ELEM_KEY:
				copy(e.key[:], find(v, unix.NFTA_DATA_VALUE))
			case unix.NFTA_SET_ELEM_FLAGS:
				e.end = be32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
			case unix.NFTA_SET_ELEM_EXPIRATION:
				left = time.Duration(be64(v)) * time.Millisecond
			}
			return true
		})
		each(e, left)
		return true
	})
}

// static reads a static set in the order of comparison. The nft program marks
// the space before the first range with an end at the lowest address.
func (r *reader) static(set string) ([]element, error) {
	var out []element
	err := r.elements(set, func(e element, _ time.Duration) {
		if !e.end || e.key != [16]byte{} {
			out = append(out, e)
		}
	})
	slices.SortFunc(out, compareElements)
	return slices.Compact(out), err
}

func compareElements(a, b element) int {
	if c := bytes.Compare(a.key[:], b.key[:]); c != 0 {
		return c
	}
	switch {
	case a.end == b.end:
		return 0
	case a.end:
		return -1
	}
	return 1
}
