package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"smartdns/nft"
	"smartdns/resolver/server"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/web/api"
)

// How long a portal may be open.
const (
	leastPortal = time.Minute
	mostPortal  = 30 * time.Minute

	// mostPortalAddrs is how many addresses a portal opens: a login has few.
	mostPortalAddrs = 512
)

var errPortalFull = errors.New("the portal has opened as many addresses as it may")

// portalTTL is for how long a program may keep what a portal's resolver says: it
// says the same address for every name.
const portalTTL = 5 // seconds

// portal is what is open in the kill switch for the login of a network. The zero
// value is closed.
type portal struct {
	mu        sync.Mutex // guards following
	until     time.Time
	ask       upstream.Exchanger
	table     *nft.Table
	resolvers []netip.Addr
	addrs     []netip.Addr
}

// open opens the portal of the network around v for d, and no longer: the kernel
// closes it by itself.
func (p *portal) open(ctx context.Context, v *view, o Options, d time.Duration) error {
	switch {
	case !v.parts.strict() || v.table == nil:
		return errors.New("the kill switch is off ([routing] strict), so nothing is closed")
	case d < leastPortal || d > mostPortal:
		return api.BadRequest(fmt.Sprintf("%s: a portal is open for %s to %s", d, leastPortal, mostPortal))
	}
	routers := portalRouters(v.live.facts)
	resolvers := portalResolvers(v, o, routers)
	if len(resolvers) == 0 {
		return errors.New("no router and no resolver of this network is known: is it up?")
	}
	var members []upstream.Exchanger
	for _, r := range resolvers {
		x, err := upstream.New(upstream.Config{
			Scheme: "udp", Where: upstream.At(netip.AddrPortFrom(r, dnsPort)), Dial: dialer(v.live.marks.of(routing.Direct)), Logger: o.Log,
		})
		if err != nil {
			return err
		}
		members = append(members, x)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := v.table.OpenPortal(ctx, nft.Portal{Resolvers: resolvers, Addrs: routers, Life: d}); err != nil {
		return err
	}
	p.until, p.ask, p.table = time.Now().Add(d), upstream.Group(members, upstream.InOrder), v.table
	p.resolvers, p.addrs = resolvers, routers
	return nil
}

// close closes it early.
func (p *portal) close(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return nil
	}
	if _, err := p.table.ClosePortal(ctx); err != nil {
		return err
	}
	p.until, p.ask, p.table, p.resolvers, p.addrs = time.Time{}, nil, nil, nil, nil
	return nil
}

// status is what is open now; nil for nothing.
func (p *portal) status() *api.Portal {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(p.until) {
		return nil
	}
	return &api.Portal{Schema: api.Schema, Open: true, Until: p.until, Resolvers: slices.Clone(p.resolvers), Addrs: slices.Clone(p.addrs)}
}

// opened returns whom to ask while it is open; nil while it is not.
func (p *portal) opened() upstream.Exchanger {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(p.until) {
		return nil
	}
	return p.ask
}

// answer asks the network's own resolver for this host's names, and opens the
// addresses in its answer before it is given. It reports whether dst is the
// answer. Nothing of it is cached, nor marked, nor told to anybody else.
func (p *portal) answer(ctx context.Context, dst []byte, q wire.Query, from server.Client) ([]byte, bool) {
	if !from.Addr.Addr().IsLoopback() {
		return dst, false
	}
	ask := p.opened()
	if ask == nil {
		return dst, false
	}
	reply, err := ask.Exchange(ctx, upstream.Query{Msg: wire.AppendQuery(nil, q.Name(), q.Type, false, false, nil)})
	if err != nil || p.add(ctx, addressesIn(reply.Msg)) != nil {
		return dst, false
	}
	msg := wire.AppendWithoutOPT(nil, reply.Msg)
	wire.ClampTTLs(msg, portalTTL)
	wire.PatchReply(msg, q)
	size := len(msg)
	if from.Transport == "UDP" {
		size = q.Limit()
	}
	return wire.Truncate(dst, msg, size), true
}

// add opens addresses for as long as the portal is open.
func (p *portal) add(ctx context.Context, addrs []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := time.Until(p.until)
	if left <= 0 {
		return context.DeadlineExceeded
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.IsGlobalUnicast() || slices.Contains(p.addrs, a) })
	if len(p.addrs)+len(addrs) > mostPortalAddrs {
		return errPortalFull
	}
	if _, err := p.table.OpenPortal(ctx, nft.Portal{Addrs: addrs, Life: left}); err != nil {
		return err
	}
	p.addrs = append(p.addrs, addrs...)
	return nil
}

// addressesIn returns the addresses of a reply.
func addressesIn(msg []byte) []netip.Addr {
	var m dnsmessage.Message
	if m.Unpack(msg) != nil {
		return nil
	}
	var all []netip.Addr
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, netip.AddrFrom4(b.A))
		case *dnsmessage.AAAAResource:
			all = append(all, netip.AddrFrom16(b.AAAA).Unmap())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// portalRouters returns the routers of the uplinks.
func portalRouters(f routing.Facts) []netip.Addr {
	var all []netip.Addr
	for _, d := range f.Defaults {
		if d.Via.IsValid() && d.Via.IsGlobalUnicast() && !slices.Contains(all, d.Via) {
			all = append(all, d.Via)
		}
	}
	return all
}

// portalResolvers returns the resolvers that the network handed out, as far as a
// program of this host has written them down, and its routers, which mostly are
// resolvers too.
func portalResolvers(v *view, o Options, routers []netip.Addr) []netip.Addr {
	const most = 6
	var all []netip.Addr
	for _, path := range []string{
		filepath.Join(o.Dirs.State, savedResolvConf), "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf", resolvConf,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		all = append(all, hostdns.Nameservers(text)...)
	}
	ours := func(a netip.Addr) bool {
		return !a.IsGlobalUnicast() || v.parts.isOwn(netip.AddrPortFrom(a, dnsPort), v.live.facts)
	}
	var out []netip.Addr
	for _, a := range append(all, routers...) {
		if !ours(a) && !slices.Contains(out, a) && len(out) < most {
			out = append(out, a)
		}
	}
	return out
}

// setPortal opens the portal for a time, as "10m", or closes it: "off".
func (e *engine) setPortal(ctx context.Context, word string) (api.Portal, error) {
	closed := api.Portal{Schema: api.Schema, Resolvers: []netip.Addr{}, Addrs: []netip.Addr{}}
	if word == "off" {
		err := e.portal.close(ctx)
		e.sealed.Generation().Advance()
		return closed, err
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		return closed, api.BadRequest(fmt.Sprintf("%q is no time: write how long, as 10m, or off", word))
	}
	if err := e.portal.open(ctx, e.shown.Load(), e.opts, d); err != nil {
		return closed, err
	}
	// What is sealed would be answered past the portal.
	e.sealed.Generation().Advance()
	e.log.Warn("the kill switch is open for the login of this network", "for", d.String())
	return *e.portal.status(), nil
}

func portalCondition(p *api.Portal) api.Condition {
	return api.Condition{
		Severity: severityWarning, Fix: "smartdns portal off",
		What: "the kill switch is open for the login of this network, until " + p.Until.Format(time.TimeOnly),
	}
}
