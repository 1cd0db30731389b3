package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Chains of the moments before the rules decide.
const (
	chainAwake = "awake" // has the first rule of ours that needs conntrack
	chainHold  = "hold"  // keeps the LAN from beginning flows that conntrack would know and no rule had decided
	chainFresh = "hold_new"
)

// keepStep gives established connections from outside their conntrack entries.
type keepStep struct {
	connections int
	mark        uint32
	field       routing.Field
}

func (s keepStep) String() string {
	return fmt.Sprintf("conntrack -I -p tcp --state ESTABLISHED --mark %s  # %d connections to this host", s.field.Format(s.mark), s.connections)
}

// activate keeps what is there: the first rule about ct state switches
// conntrack on, and the next packet of an old connection would then look like
// that of a new flow. So conntrack is switched on first, then told of the
// connections, and only then do rules decide. What the LAN begins meanwhile
// would be taken for such an old flow, and stay where it is: it is dropped, and
// tried again in a moment. The chains belong to no ruleset: the transaction
// that follows removes them.
//
// Only what others began with us is told: it is answered the way it came. What
// this host began has no entry if conntrack was off, or if its tunnel has gone:
// one cannot be told from the other, so the rules decide. What they send direct
// goes on, and what belongs into a tunnel ends, without a packet outside of it.
func (t *Table) activate(have snapshot, p program) ([]routing.Step, error) {
	var todo plan
	if !have.exists || t.flags&flagOwner != 0 && have.flags&flagPersist != 0 && have.owner != t.owner.port {
		todo.table = append(todo.table, addTable(t.flags))
	}
	hold, awake := p.waking()
	todo.table = append(todo.table, hold.diffChains(snapshot{})...)
	if err := t.transact(todo.table); err != nil {
		return nil, err
	}
	woken := awake.diffChains(snapshot{})
	todo.table = append(todo.table, woken...)
	if err := t.transact(woken); err != nil {
		return nil, err
	}
	if t.woken {
		// Conntrack has kept the older ones over a flush; those that began
		// meanwhile were decided by nobody, and must not stay direct.
		return todo.steps(), nil
	}
	t.woken = true
	if p.strict {
		// Whoever began it, it may be the tunnel's: the rules end or decide it.
		return todo.steps(), nil
	}
	connections, err := cameIn()
	mark := p.field.Value(routing.MarkDirect)
	n, terr := track(t.flows, connections, mark)
	if err := errors.Join(err, terr); err != nil {
		// The rules matter more: without them everything would stay as it is.
		t.log.Warn("keeping the connections of before; some may end", "err", err)
	}
	return append(todo.steps(), keepStep{n, mark, p.field}), nil
}

// waking returns the chains of before conntrack is on, and those that switch
// it on.
func (p program) waking() (hold, awake program) {
	c := chain{name: chainHold, base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -300, "raw"}}
	fresh := chain{name: chainFresh, base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -90, "dstnat + 10"},
		rules: rules(on(toType(local()), ret()).because("a query to us leaves by no path"))}
	for _, s := range p.sets {
		if s.name != setLANIfs {
			continue
		}
		for _, lan := range s.names {
			c.rules = append(c.rules, on(in().is(lan), isSYN(), drop()))
			fresh.rules = append(fresh.rules, on(in().is(lan), isNew(), drop()))
		}
	}
	hold.chains = []chain{c}
	awake.chains = []chain{
		{name: chainAwake, base: &hook{"filter", "output", unix.NF_INET_LOCAL_OUT, -150, "mangle"}, rules: rules(on(isNew(), ret()))},
		fresh,
	}
	return hold, awake
}

// hooked reports whether the kernel calls any chain of the table.
func (s snapshot) hooked() bool {
	for name, c := range s.chains {
		if c.base != nil && name != chainAwake && name != chainHold && name != chainFresh {
			return true
		}
	}
	return false
}

// Numbers of inet_diag that x/sys does not name.
const (
	diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	diagRequest  = 56 // struct inet_diag_req_v2
	diagMessage  = 72 // struct inet_diag_msg
)

// cameIn lists the TCP connections that other hosts opened to this one: those
// whose local port is listened to.
func cameIn() ([]connection, error) {
	c, err := dial(unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var all []connection
	listening := map[netip.AddrPort]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var m messages
		err := c.dump(&m, func(m *messages) { askSockets(m, family) }, func(_ uint16, b []byte) error {
			tcp, state, ok := parseSocket(b)
			switch {
			case !ok:
			case state == tcpListen && tcp.local.Addr().IsUnspecified():
				listening[anyAddr(tcp.local.Port())] = true
			case state == tcpListen:
				listening[tcp.local] = true
			case !tcp.remote.Addr().IsLoopback() && tcp.local.Addr() != tcp.remote.Addr():
				all = append(all, tcp)
			}
			return nil
		})
		if err != nil && err != errInterrupted {
			return nil, fmt.Errorf("listing TCP connections: %w", err)
		}
	}
	return slices.DeleteFunc(all, func(tcp connection) bool {
		return !listening[tcp.local] && !listening[anyAddr(tcp.local.Port())]
	}), nil
}

// anyAddr is every address of this host, of both families: a listener on [::]
// mostly takes IPv4 as well.
func anyAddr(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv6Unspecified(), port) }

const tcpListen = 10 // TCP_LISTEN

// askSockets asks for listeners, and for connections in every state after the
// handshake.
func askSockets(m *messages, family byte) {
	const established, finWait1, finWait2, closeWait, lastAck, closing = 1, 4, 5, 8, 9, 11
	m.open = len(m.buf)
	b := binary.NativeEndian.AppendUint32(m.buf, headerLen+diagRequest)
	b = binary.NativeEndian.AppendUint16(b, diagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = binary.NativeEndian.AppendUint32(b, m.first+m.n)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<established|1<<finWait1|1<<finWait2|1<<closeWait|1<<lastAck|1<<closing|1<<tcpListen)
	m.buf = append(b, make([]byte, diagRequest-8)...)
	m.n++
}

// parseSocket decodes one inet_diag_msg: family, state, timer, retransmits,
// ports, addresses of 16 bytes each.
func parseSocket(b []byte) (c connection, state byte, ok bool) {
	if len(b) < diagMessage {
		return c, 0, false
	}
	addr := func(at int) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(b[at : at+16])).Unmap()
	}
	c.local = netip.AddrPortFrom(addr(8), binary.BigEndian.Uint16(b[4:]))
	c.remote = netip.AddrPortFrom(addr(24), binary.BigEndian.Uint16(b[6:]))
	return c, b[1], true
}
