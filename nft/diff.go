package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// A step is one change to the table: the nft command, and the messages that do
// the same.
type step struct {
	text string
	emit func(*messages)
}

func (s step) String() string { return s.text }

// A flowStep deletes conntrack entries by their mark.
type flowStep struct{ move }

func (s flowStep) String() string { return "conntrack -D --mark " + s.field.Format(s.mark) }

// A plan is the way from what the kernel has to what it should have: one
// transaction, and the flows to end after it.
type plan struct {
	table   []step
	flows   []flowStep
	empties bool // a set of marks is new: what the ledger knows of it is void
	fills   bool // a set is new, or a static one gets other elements
	// The table is made anew, with the marks that were read from it.
	rebuilds bool
}

func (p plan) steps() []routing.Step {
	var out []routing.Step
	for _, s := range p.table {
		out = append(out, s)
	}
	for _, s := range p.flows {
		out = append(out, s)
	}
	return out
}

func addTable(flags uint32) step {
	return step{tableText(flags), func(m *messages) { newTable(m, flags) }}
}

// elementsPerMessage keeps an attribute far below the 64 KiB at which its
// length would wrap.
const elementsPerMessage = 1000

// diff plans the changes. Dynamic sets keep their elements. flags are those
// that the table should have; a table that has to be made anew to get them, or
// to change what a set or chain is, gets the kept elements back, and so does a
// set that somebody else took away.
func (p program) diff(have snapshot, flags, port uint32, kept []kept) plan {
	var out plan
	add := func(text string, emit func(*messages)) { out.table = append(out.table, step{text, emit}) }
	if have.exists && p.mustRebuild(have, flags) {
		add("nft delete table inet "+TableName, func(m *messages) { deleteTable(m) })
		out.flows = p.moved(have)
		have = snapshot{}
	} else {
		out.flows = p.moved(have)
	}
	if !have.exists || flags&flagOwner != 0 && have.owner != port {
		out.table = append(out.table, addTable(flags))
	}
	for _, name := range p.counters {
		if _, ok := have.counters[name]; !ok {
			add(fmt.Sprintf("nft add counter inet %s %s", TableName, name), func(m *messages) { newCounter(m, name) })
		}
	}
	for _, s := range p.sets {
		_, exists := have.sets[s.name]
		out.empties = out.empties || s.marks && !exists
		steps := s.diff(have.sets)
		out.fills = out.fills || len(steps) > 0
		out.table = append(out.table, steps...)
	}
	for _, k := range kept {
		add(fmt.Sprintf("nft add element inet %s %s { %d that were there }", TableName, k.set, len(k.marks)), k.emit)
	}
	if len(p.offload) > 0 && have.offload == nil {
		out.table = append(out.table, addFlowtable(p.offload))
	}
	out.table = append(out.table, p.diffChains(have)...)
	out.table = append(out.table, p.leftovers(have)...)
	return out
}

// mustRebuild reports whether an object of ours is there as something else.
func (p program) mustRebuild(have snapshot, flags uint32) bool {
	// A table without persist cannot become owned and persistent.
	if flags&flagOwner != 0 && have.flags&flagPersist == 0 {
		return true
	}
	for _, s := range p.sets {
		k, ok := have.sets[s.name]
		if ok && (k.flags != s.flags() || k.magic != s.kind.magic || k.length != s.kind.length || s.resizes(k)) {
			return true
		}
	}
	for _, c := range p.chains {
		k, ok := have.chains[c.name]
		if ok && !c.base.same(k.base) {
			return true
		}
	}
	// Interfaces leave a flowtable by themselves when they go, and no other way.
	return len(p.offload) > 0 && have.offload != nil && !slices.Equal(p.offload, have.offload)
}

// resizes reports whether the kernel's set needs another size. A larger one
// stays while it holds more elements than it should have room for: nobody's mark
// ends because of a number.
func (s set) resizes(k kernelSet) bool {
	return s.size > k.size || s.size < k.size && 0 <= k.count && k.count <= int(s.size)
}

// roomFor makes sets large enough for the elements that they get.
func (p program) roomFor(back []kept) program {
	p.sets = slices.Clone(p.sets)
	for i := range p.sets {
		n := 0
		for _, k := range back {
			if k.set == p.sets[i].name {
				n += len(k.marks)
			}
		}
		if s := &p.sets[i]; s.size > 0 {
			s.size = max(s.size, uint32(n))
		}
	}
	return p
}

func (h *hook) same(k *hook) bool {
	if h == nil || k == nil {
		return h == nil && k == nil
	}
	return h.kind == k.kind && h.number == k.number && h.priority == k.priority
}

// moved lists the flows that have to end: those of tunnels whose state changed,
// and those of tunnels that are no more.
func (p program) moved(have snapshot) []flowStep {
	var out []flowStep
	gone := false
	for name := range have.chains {
		gone = gone || strings.HasPrefix(name, "to_") && !slices.ContainsFunc(p.chains, func(c chain) bool { return c.name == name })
	}
	for _, m := range p.moves {
		i := slices.IndexFunc(p.chains, func(c chain) bool { return c.name == m.chain })
		k, ok := have.chains[m.chain]
		if ok && i >= 0 && !p.chains[i].same(k) && !slices.ContainsFunc(m.unless, func(c chain) bool { return c.same(k) }) {
			out = append(out, flowStep{m})
		}
	}
	if gone {
		for n := range routing.MaxTunnels {
			if mark := p.field.Tunnel(n); !slices.Contains(p.marks, mark) {
				out = append(out, flowStep{move{mark: mark, field: p.field}}, flowStep{move{mark: p.field.Stood(n), field: p.field}})
			}
		}
	}
	return out
}

func (s set) diff(have map[string]kernelSet) []step {
	k, exists := have[s.name]
	var out []step
	if !exists {
		out = append(out, step{s.command(), func(m *messages) { newSet(m, s) }})
	}
	if s.marks {
		return out
	}
	want := s.elements()
	if slices.Equal(want, k.elements) {
		return out
	}
	if len(k.elements) > 0 {
		out = append(out, step{fmt.Sprintf("nft flush set inet %s %s", TableName, s.name), func(m *messages) { flushSet(m, s.name) }})
	}
	if len(want) > 0 {
		out = append(out, step{s.elementCommand(), func(m *messages) {
			for part := range slices.Chunk(want, elementsPerMessage) {
				newElements(m, s, part)
			}
		}})
	}
	return out
}

func (s set) command() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nft add set inet %s %s { type %s;", TableName, s.name, s.kind.text)
	if s.size > 0 {
		fmt.Fprintf(&b, " size %d;", s.size)
	}
	if s.marks {
		b.WriteString(" flags timeout;")
	}
	if s.interval() {
		b.WriteString(" flags interval;")
	}
	b.WriteString(" }")
	return b.String()
}

// elementCommand shows the first elements of a long list.
func (s set) elementCommand() string {
	if n := s.count(); n > inlineElements {
		return fmt.Sprintf("nft add element inet %s %s { %s, ... } # %d in all", TableName, s.name, strings.Join(s.items(3), ", "), n)
	}
	return fmt.Sprintf("nft add element inet %s %s { %s }", TableName, s.name, strings.Join(s.items(inlineElements), ", "))
}

// diffChains makes every chain before the first rule that may lead to it.
func (p program) diffChains(have snapshot) []step {
	var out []step
	for _, c := range p.chains {
		if _, ok := have.chains[c.name]; !ok {
			out = append(out, step{c.command(), func(m *messages) { newChainMessage(m, c) }})
		}
	}
	for _, c := range p.chains {
		k, ok := have.chains[c.name]
		if ok && c.same(k) {
			continue
		}
		if len(k.rules) > 0 {
			out = append(out, step{fmt.Sprintf("nft flush chain inet %s %s", TableName, c.name), func(m *messages) { flushChain(m, c.name) }})
		}
		for _, r := range c.rules {
			out = append(out, step{fmt.Sprintf("nft add rule inet %s %s %s", TableName, c.name, r), func(m *messages) { newRule(m, c.name, r) }})
		}
	}
	return out
}

func (c chain) command() string {
	if c.base == nil {
		return fmt.Sprintf("nft add chain inet %s %s", TableName, c.name)
	}
	return fmt.Sprintf("nft add chain inet %s %s { %s }", TableName, c.name, c.base)
}

// leftovers removes what is in our table but not in the ruleset.
func (p program) leftovers(have snapshot) []step {
	var out []step
	names := func(of []string, ours func(string) bool) []string {
		slices.Sort(of)
		return slices.DeleteFunc(of, ours)
	}
	stale := names(slices.Collect(maps.Keys(have.chains)), func(s string) bool {
		return slices.ContainsFunc(p.chains, func(c chain) bool { return c.name == s })
	})
	for _, s := range stale {
		out = append(out, step{fmt.Sprintf("nft flush chain inet %s %s", TableName, s), func(m *messages) { flushChain(m, s) }})
	}
	for _, s := range stale {
		out = append(out, step{fmt.Sprintf("nft delete chain inet %s %s", TableName, s), func(m *messages) {
			deleteNamed(m, unix.NFT_MSG_DELCHAIN, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, s)
		}})
	}
	if len(p.offload) == 0 && have.offload != nil {
		out = append(out, deleteFlowtable())
	}
	for _, s := range names(slices.Collect(maps.Keys(have.sets)), func(s string) bool {
		return slices.ContainsFunc(p.sets, func(w set) bool { return w.name == s })
	}) {
		out = append(out, step{fmt.Sprintf("nft delete set inet %s %s", TableName, s), func(m *messages) { deleteNamed(m, unix.NFT_MSG_DELSET, unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, s) }})
	}
	for _, s := range names(slices.Collect(maps.Keys(have.counters)), func(s string) bool { return slices.Contains(p.counters, s) }) {
		out = append(out, step{fmt.Sprintf("nft delete counter inet %s %s", TableName, s), func(m *messages) { deleteCounter(m, s) }})
	}
	return out
}

// same reports whether the kernel's chain has exactly the rules of c.
func (c chain) same(k kernelChain) bool {
	return slices.EqualFunc(c.rules, k.rules, func(r rule, k kernelRule) bool {
		return bytes.Equal(r.userdata(), k.userdata) && sameExpressions(r.expressions(), k.exprs)
	})
}

func (r rule) userdata() []byte {
	if r.comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

// expressions returns the rule's expressions as the list of an attribute.
func (r rule) expressions() []byte {
	var m messages
	for _, t := range r.terms {
		for _, e := range t.exprs {
			at := m.nest(unix.NFTA_LIST_ELEM)
			if ct, ok := e.(*expr.Ct); ok && ct.Key >= ctKeyDSTIP {
				m.flowAddress(ct)
				m.close(at)
				continue
			}
			b, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				panic(fmt.Sprintf("nft: expression %T of %q: %v", e, t.text, err)) // they are all ours
			}
			m.buf = append(m.buf, b...)
			m.close(at)
		}
	}
	return m.buf
}

// flowAddress writes an expression that the library writes without its
// direction.
func (m *messages) flowAddress(ct *expr.Ct) {
	m.str(unix.NFTA_EXPR_NAME, "ct")
	at := m.nest(unix.NFTA_EXPR_DATA)
	m.u32(unix.NFTA_CT_KEY, uint32(ct.Key))
	m.u32(unix.NFTA_CT_DREG, ct.Register)
	m.bytes(unix.NFTA_CT_DIRECTION, []byte{byte(ct.Direction)})
	m.close(at)
}

// sameExpressions compares what we would send with what the kernel shows: it
// adds attributes with their zero values and leaves out ids that only mean
// something within a transaction.
func sameExpressions(want, have []byte) bool {
	w, h := split(want), split(have)
	return slices.EqualFunc(w, h, func(w, h attribute) bool {
		name := text(find(w.value, unix.NFTA_EXPR_NAME))
		if name != text(find(h.value, unix.NFTA_EXPR_NAME)) {
			return false
		}
		data := split(find(w.value, unix.NFTA_EXPR_DATA))
		if name == "lookup" {
			data = slices.DeleteFunc(data, func(a attribute) bool { return a.typ == unix.NFTA_LOOKUP_SET_ID })
		}
		shown := split(find(h.value, unix.NFTA_EXPR_DATA))
		if name == "nat" { // the kernel notes that addresses are given, and no more
			shown = slices.DeleteFunc(shown, func(a attribute) bool { return a.typ == unix.NFTA_NAT_FLAGS })
		}
		return sameAttributes(data, shown)
	})
}

// attribute is one netlink attribute.
type attribute struct {
	typ    uint16
	nested bool
	value  []byte
}

// split returns the attributes of b by type.
func split(b []byte) []attribute {
	var out []attribute
	for len(b) >= unix.SizeofNlAttr {
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		out = append(out, attribute{typ & typeMask, typ&nestedBit != 0, b[unix.SizeofNlAttr:n]})
		b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	slices.SortStableFunc(out, func(a, b attribute) int { return cmp.Compare(a.typ, b.typ) })
	return out
}

func sameAttributes(want, have []attribute) bool {
	for _, h := range have {
		if len(want) == 0 || want[0].typ != h.typ {
			if slices.ContainsFunc(h.value, func(b byte) bool { return b != 0 }) {
				return false
			}
			continue
		}
		w := want[0]
		want = want[1:]
		if w.nested {
			if !sameAttributes(split(w.value), split(h.value)) {
				return false
			}
		} else if !bytes.Equal(bytes.TrimSuffix(w.value, []byte{0}), bytes.TrimSuffix(h.value, []byte{0})) {
			return false
		}
	}
	return !slices.ContainsFunc(want, func(a attribute) bool {
		return slices.ContainsFunc(a.value, func(b byte) bool { return b != 0 })
	})
}
