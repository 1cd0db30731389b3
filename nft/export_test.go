package nft

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// DeleteFlows is for tests that play an admin with conntrack -D.
func DeleteFlows(mark, mask uint32) error {
	c, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.close()
	return deleteFlows(c, mark, mask)
}

// IsOwned reports whether nobody else can change the table.
func IsOwned(t *Table) bool { return t.owned() }

// Hold keeps marks from being committed until release is called.
func Hold(t *Table) (release func()) {
	t.marker.commits.Lock()
	return t.marker.commits.Unlock
}

// LoseConntrack makes everything fail that has to do with conntrack, until
// regain is called.
func LoseConntrack(t *Table) (regain func()) {
	t.flows.mu.Lock()
	defer t.flows.mu.Unlock()
	fd := t.flows.fd
	t.flows.fd = -1
	return func() {
		t.flows.mu.Lock()
		defer t.flows.mu.Unlock()
		t.flows.fd = fd
	}
}

// Narrow makes the socket that changes the table take only short messages.
func Narrow(t *Table) error {
	return unix.SetsockoptInt(t.owner.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
}

// SetUnprovable is Set with an element that the kernel accepts and does not keep:
// one that is there already.
func SetUnprovable(t *Table, r Ruleset) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := r.program()
	for i := range p.sets {
		if s := &p.sets[i]; s.name == setLANIfs {
			s.names = append(s.names, s.names...)
		}
	}
	return t.set(p)
}

// Enough is the rule of renewal.
func Enough(left, least time.Duration) bool { return enough(left, least) }

// ExplainAbsence is what Open says when the first question gets that answer.
func ExplainAbsence(err error) error { return explainAbsence(err) }

// Commits counts the messages sent to the kernel on the socket that marks.
func Commits(t *Table) uint32 {
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	return t.owner.seq
}

// Filled waits for the ledger to know every mark in the kernel.
func Filled(t *Table) error { return t.marks.fill(t.ledger) }

// MarkMessages returns a transaction as bytes.
func MarkMessages() []byte {
	var m messages
	m.batchBegin()
	writeMarks(&m, addMarks, "wg0_4", []pending{{key: claimKey{is4: true}, life: time.Hour}})
	m.batchEnd()
	return m.buf
}

// EmitMarks describes the transaction for marks that the ledger does not know;
// a complete ledger knows that the kernel does not have them either.
func EmitMarks(complete bool, paths []routing.Path, marks []routing.Mark) (out []string) {
	l := newLedger()
	l.setPaths(paths, routing.DefaultField, nil)
	l.complete = complete
	var batch []pending
	if _, _, err := l.missing(time.Now(), []*request{{marks: marks}}, &batch); err != nil {
		return []string{err.Error()}
	}
	var m messages
	m.batchBegin()
	l.emit(&m, batch)
	m.batchEnd()
	walk(m.buf, func(typ, flags uint16, _, _ uint32, body []byte) error {
		out = append(out, describe(typ, flags, body))
		return nil
	})
	return out
}

func describe(typ, flags uint16, body []byte) string {
	what := ""
	switch typ {
	case unix.NFNL_MSG_BATCH_BEGIN:
		return "begin"
	case unix.NFNL_MSG_BATCH_END:
		return "end"
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM:
		if what = "add"; flags&unix.NLM_F_EXCL != 0 {
			what = "create"
		}
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM:
		what = "delete"
	}
	var elements []string
	attributes(find(body[genLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, v []byte) bool {
		a, _ := netip.AddrFromSlice(find(find(v, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE))
		elements = append(elements, a.String())
		if timeout := find(v, unix.NFTA_SET_ELEM_TIMEOUT); timeout != nil {
			elements = append(elements, (time.Duration(be64(timeout)) * time.Millisecond).String())
		}
		return true
	})
	s := fmt.Sprintf("%s %s [%s]", what, text(find(body[genLen:], unix.NFTA_SET_ELEM_LIST_SET)), strings.Join(elements, " "))
	if flags&unix.NLM_F_ACK != 0 {
		s += " acknowledge"
	}
	return s
}

// Decode feeds b to everything that reads what the kernel sends.
func Decode(b []byte) {
	us := netip.MustParseAddr("fd08::1")
	for _, v := range []visit{arrival(Client{Us: us}, Port{Number: 53}, unix.IPPROTO_TCP), forwarded(Client{}, device{}, unix.NFPROTO_IPV4)} {
		w := walker{r: &reader{}, base: &baseChain{}, visit: v}
		w.rule(b)
	}
	walk(b, func(typ, flags uint16, seq, port uint32, body []byte) error {
		list(body, func(element, time.Duration) {})
		return nil
	})
	about(b, TableName)
	parseSocket(b)
	sameExpressions(b, b)
	be32(b)
	be64(b)
	text(b)
}

// Expressions returns a rule's worth of bytes.
func Expressions() []byte {
	r := Ruleset{Tunnels: []Tunnel{{Path: "wg0", Mark: 0x2000000, MTU: 1420}}}
	var out []byte
	for _, c := range r.chains() {
		for _, rule := range c.rules {
			out = append(out, rule.expressions()...)
		}
	}
	return out
}

// FlowtableMessage returns the message that adds our flowtable, in hexadecimal.
func FlowtableMessage(devices ...string) string {
	var m messages
	newFlowtable(&m, TableName, devices)
	return hex.EncodeToString(m.buf)
}

// DropsIPv4 reports whether chain INPUT of table ip filter, whose policy is drop,
// surely drops what a client asks at a port, and which chain says so.
func DropsIPv4(rules map[string][][]byte, c Client, p Port, tcp bool) (by string, yes bool) {
	var r reader // rules without sets ask the kernel nothing
	v := arrival(c, p, unix.IPPROTO_UDP)
	if tcp {
		v.protocol = unix.IPPROTO_TCP
	}
	return r.drops(&baseChain{family: unix.NFPROTO_IPV4, table: "filter", name: "INPUT", drops: true, rules: rules}, v)
}

// Asked counts the questions that Set asked the kernel.
func Asked(t *Table) uint32 {
	t.state.c.mu.Lock()
	defer t.state.c.mu.Unlock()
	return t.state.c.seq
}

// Ranges are what the static sets of prefixes hold, IPv4 first.
func Ranges(prefixes []netip.Prefix) (all []netipx.IPRange) {
	for _, s := range static("x", prefixes) {
		all = slices.AppendSeq(all, s.prefixes())
	}
	return all
}

// Counts reports whether the kernel says how many elements a set has.
func Counts(t *Table) (bool, error) {
	sets, err := t.state.sets()
	return sets[setTunnels].count >= 0, err
}

// MadeHome tells one making of the set of home from another.
func MadeHome(t *Table) any { return &t.made[setHome].sets[0].ranges[0] }

// Awaken stops between the moment when conntrack is on and the one when the
// rules decide.
func Awaken(t *Table, r Ruleset) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.activate(snapshot{}, r.program())
	return err
}
