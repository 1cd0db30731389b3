package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// peerPrefix begins the names of the tables of far ends.
const peerPrefix = TableName + "-peer-"

// Names of the sets of a far end's table.
const (
	setPeers   = "peers"   // what the clients have
	setPrivate = "private" // what they may not reach unless asked
)

// PeerRuleset is the table of a far end: what forwards, guards and translates
// for the clients of one WireGuard link. It is a plain value.
type PeerRuleset struct {
	Name    string         // of the link
	Own     []netip.Addr   // of this host, on the link
	Peers   []netip.Prefix // the clients' addresses and the networks behind them
	LAN     []PeerLAN      // the networks of this host that they may reach
	SNAT    []netip.Addr   // at most one per family; a family without one is masqueraded
	Private []netip.Prefix // nil = Private()
	MTU     int            // of the link; 0 = segments out of it are not clamped
}

// PeerLAN is an interface of this host whose network and the clients may reach
// each other.
type PeerLAN struct {
	Name string
	// Translate is set where this host is not its network's router: what comes
	// from addresses outside of Prefixes then gets this host's own, so that it is
	// answered.
	Translate bool
	Prefixes  []netip.Prefix // of the interface
}

// TableName is the name of r's table, in family inet.
func (r PeerRuleset) TableName() string { return peerTable(r.Name) }

func peerTable(link string) string { return peerPrefix + ident(link) }

// Check reports the first thing about r that cannot be right.
func (r PeerRuleset) Check() error {
	names := []string{r.Name}
	for _, l := range r.LAN {
		names = append(names, l.Name)
	}
	for _, n := range names {
		if !isInterfaceName(n) {
			return fmt.Errorf("%q is not an interface name", n)
		}
	}
	for i, a := range r.SNAT {
		if slices.ContainsFunc(r.SNAT[:i], func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return fmt.Errorf("%s: one address per family is enough to translate to", a)
		}
	}
	return nil
}

// String returns the table as nft -f reads it.
func (r PeerRuleset) String() string {
	return strings.Replace(r.program().text(true), "table inet "+TableName+" {", "table inet "+r.TableName()+" {", 1)
}

func (r PeerRuleset) program() program {
	private := r.Private
	if private == nil {
		private = Private()
	}
	var names []string
	var prefixes []netip.Prefix
	for _, l := range r.LAN {
		names = append(names, l.Name)
		prefixes = append(prefixes, l.Prefixes...)
	}
	p := program{sets: []set{{name: setLANIfs, kind: interfaces(), names: sorted(names)}}}
	p.sets = append(p.sets, static(setPeers, r.Peers)...)
	p.sets = append(p.sets, static(setLAN, prefixes)...)
	p.sets = append(p.sets, static(setPrivate, private)...)
	p.chains = []chain{r.guard(), r.forward(), r.srcnat()}
	return p
}

// guard keeps neighbours on other links from the addresses inside the tunnel.
func (r PeerRuleset) guard() chain {
	c := chain{name: "guard", base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -300, "raw"},
		about: "the addresses of the tunnel are reached by the tunnel"}
	for _, a := range r.Own {
		c.rules = append(c.rules, on(in().not(r.Name), in().outside(setLANIfs), toAddr(a), notFromType(local()), drop()).because("CVE-2019-14899"))
	}
	return c
}

// forward says what the clients may reach, and who may reach them.
func (r PeerRuleset) forward() chain {
	into, from := out().is(r.Name), in().is(r.Name)
	c := chain{name: "forward", base: &hook{"filter", "forward", unix.NF_INET_FORWARD, 0, "filter"},
		about: "from the clients to each other, to the networks that were named and to the Internet"}
	c.rules = rules(on(into, isSYN(), clampToRoute()))
	for _, f := range families() {
		if r.MTU > f.headers {
			c.rules = append(c.rules, on(from, isSYN(), f.only(), clampTo(uint16(r.MTU-f.headers))))
		}
	}
	c.rules = append(c.rules,
		on(isKnown(), accept()),
		on(from, into, accept()),
		on(from, out().among(setLANIfs), accept()),
		on(in().among(setLANIfs), into, accept()),
		on(into, isForwardedPort(), accept()),
		on(into, reject()).because("nobody asked to let these reach the clients"),
	)
	for _, f := range families() {
		c.rules = append(c.rules, on(from, f.to(setPrivate), reject()).because("neighbours of this host"))
	}
	c.rules = append(c.rules, on(from, accept()))
	return c
}

// srcnat translates what leaves for the Internet.
func (r PeerRuleset) srcnat() chain {
	c := chain{name: "srcnat", base: &hook{"nat", "postrouting", unix.NF_INET_POST_ROUTING, 100, "srcnat"},
		about: "to the Internet with this host's address, between networks with their own"}
	c.rules = rules(on(out().is(r.Name), ret()))
	for _, l := range r.LAN {
		if !l.Translate {
			c.rules = append(c.rules, on(out().is(l.Name), ret()))
			continue
		}
		for _, f := range families() {
			c.rules = append(c.rules, on(out().is(l.Name), f.from(setLAN), f.to(setLAN), ret()).because("answered by proxy"))
		}
	}
	for _, f := range families() {
		then := masquerade()
		for _, a := range r.SNAT {
			if familyOf(a) == f {
				then = sourceNAT(a)
			}
		}
		c.rules = append(c.rules, on(f.from(setPeers), then))
	}
	return c
}

// sourceNAT gives packets another source.
func sourceNAT(a netip.Addr) term {
	f := familyOf(a)
	return term{fmt.Sprintf("snat %s to %s", f.text, a), []expr.Any{
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: reg, RegAddrMax: reg},
	}}
}

// PeerTable works on the table of one far end. Anybody may change that table:
// Set mends it. It is for one goroutine.
type PeerTable struct {
	c    *conn
	read reader
	name string
	m    messages
}

// OpenPeerTable prepares to work on the table of the far end whose link is
// called so, and changes nothing. Close must be called.
func OpenPeerTable(link string) (*PeerTable, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, explain("using nftables", err)
	}
	c.room(4<<20, 4<<20)
	t := &PeerTable{c: c, name: peerTable(link)}
	t.m.table = t.name
	t.read = reader{c: c, m: messages{table: t.name}}
	return t, nil
}

// Close frees the socket; the table stays.
func (t *PeerTable) Close() error { return t.c.close() }

// Set brings the table to want in one transaction, and returns what it did:
// nothing when all is there already.
func (t *PeerTable) Set(ctx context.Context, want PeerRuleset) ([]routing.Step, error) {
	if err := errors.Join(ctx.Err(), want.Check()); err != nil {
		return nil, err
	}
	have, err := t.read.snapshot(nil)
	if err != nil {
		return nil, explainAbsence(err)
	}
	p := want.program()
	if p.stands(have) {
		return nil, nil
	}
	var all []step
	add := func(text string, emit func(*messages)) { all = append(all, step{text, emit}) }
	if have.exists {
		add("nft delete table inet "+t.name, deleteTable)
	}
	add("nft add table inet "+t.name, func(m *messages) { newTable(m, 0) })
	for _, s := range p.sets {
		add(t.named(s.command()), func(m *messages) { newSet(m, s) })
		if len(s.elements()) > 0 {
			add(t.named(s.elementCommand()), func(m *messages) {
				for part := range slices.Chunk(s.elements(), elementsPerMessage) {
					newElements(m, s, part)
				}
			})
		}
	}
	for _, c := range p.chains {
		add(t.named(c.command()), func(m *messages) { newChainMessage(m, c) })
		for _, r := range c.rules {
			add(fmt.Sprintf("nft add rule inet %s %s %s", t.name, c.name, r), func(m *messages) { newRule(m, c.name, r) })
		}
	}
	return t.transact(all)
}

// named is a command about our table as one about t.
func (t *PeerTable) named(command string) string {
	return strings.Replace(command, " inet "+TableName+" ", " inet "+t.name+" ", 1)
}

// Delete removes the table, and returns what it changed.
func (t *PeerTable) Delete(ctx context.Context) ([]routing.Step, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	have, err := t.read.table()
	if err != nil {
		return nil, explain("reading table inet "+t.name, err)
	}
	if !have.exists {
		return nil, nil
	}
	return t.transact([]step{{"nft delete table inet " + t.name, deleteTable}})
}

func (t *PeerTable) transact(all []step) ([]routing.Step, error) {
	firsts := make([]uint32, len(all))
	err := t.c.transact(&t.m, func(m *messages) {
		for i, s := range all {
			firsts[i] = m.n
			s.emit(m)
		}
	})
	if r, ok := errors.AsType[refusal](err); ok {
		if i := stepOf(firsts, r); i >= 0 {
			return nil, explain(all[i].text, err)
		}
	}
	if err != nil {
		return nil, explain("changing table inet "+t.name, err)
	}
	return plan{table: all}.steps(), nil
}

// Follow calls changed, from a goroutine of its own, whenever somebody else has
// changed the table, until stop is called.
func (t *PeerTable) Follow(changed func()) (stop func() error, err error) {
	w, err := newWatch(t.c.port)
	if err != nil {
		return nil, err
	}
	w.name = t.name
	var running sync.WaitGroup
	running.Go(func() {
		for w.wait() == nil {
			changed()
		}
	})
	return func() error {
		err := w.Close()
		running.Wait()
		return err
	}, nil
}

// Gates returns the chains of others that drop what the clients behind link send
// anywhere.
func (t *PeerTable) Gates(ctx context.Context, link string) ([]Gate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	from := Client{Link: link}
	gates, err := t.read.gates(unix.NF_INET_FORWARD, []visit{
		forwarded(from, device{}, unix.NFPROTO_IPV4), forwarded(from, device{}, unix.NFPROTO_IPV6),
	})
	for i := range gates {
		g := &gates[i]
		g.fix = []string{
			fmt.Sprintf(`%s iifname "%s" accept`, g.insert(), link),
			fmt.Sprintf(`%s oifname "%s" ct state established,related accept`, g.insert(), link),
		}
	}
	return gates, explain("reading the chains of others", err)
}

// stands reports whether the kernel has exactly p.
func (p program) stands(have snapshot) bool {
	if !have.exists || len(have.chains) != len(p.chains) || len(have.sets) != len(p.sets) || len(have.counters) > 0 {
		return false
	}
	for _, s := range p.sets {
		k, ok := have.sets[s.name]
		want := s.elements()
		slices.SortFunc(want, compareElements)
		if !ok || k.flags != s.flags() || k.magic != s.kind.magic || !slices.Equal(want, k.elements) {
			return false
		}
	}
	return !slices.ContainsFunc(p.chains, func(c chain) bool {
		k, ok := have.chains[c.name]
		return !ok || !c.base.same(k.base) || !c.same(k)
	})
}

// PeerTables returns the links whose far ends have a table, as their names are
// in it, sorted.
func PeerTables() ([]string, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, explain("using nftables", err)
	}
	defer c.close()
	r := reader{c: c}
	found := map[string]bool{}
	err = r.dumpAll(unix.NFT_MSG_GETTABLE, func() { clear(found) }, func(family uint8, b []byte) {
		if name, ok := strings.CutPrefix(text(find(b, unix.NFTA_TABLE_NAME)), peerPrefix); ok && family == unix.NFPROTO_INET {
			found[name] = true
		}
	})
	return slices.Sorted(maps.Keys(found)), explain("listing tables", err)
}
