package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"smartdns/routing"
	"smartdns/routing/wg"
)

// overhead is what WireGuard adds to a packet over IPv6.
const overhead = 80

// leastMTU is the smallest MTU of IPv6, leastMTU4 what every IPv4 host takes.
const (
	leastMTU  = 1280
	leastMTU4 = 576
)

// mtuTo is what the way to an endpoint leaves for packets in the tunnel, as the
// routes say.
type mtuTo struct {
	endpoint netip.Addr
	mtu      int // bytes
}

// tunnelMTU returns the MTU of t's link: what the file says, or what the way to
// the endpoint leaves. fits is the largest packet that arrives, where that is
// less; 0: all do. A tunnel with IPv6 has at least the MTU of that.
func (e *engine) tunnelMTU(t *running) (mtu, fits int) {
	if t.part.WG.MTU > 0 {
		return t.part.WG.MTU, 0
	}
	to := t.endpoint()
	if !to.IsValid() {
		return tunnelMTU, 0
	}
	if t.mtu.endpoint != to {
		t.mtu = mtuTo{to, tunnelMTU}
	}
	if way, err := e.kernel.RouteMTU(to, e.marks.field.Value(routing.MarkDirect)); err == nil && way >= leastMTU4+overhead {
		t.mtu.mtu = way - overhead
	}
	mtu, fits = t.mtu.mtu, t.path.of(t.mtu)
	if t.part.carries(routing.V6) && mtu < leastMTU {
		if fits == 0 {
			fits = mtu
		}
		mtu = leastMTU
	}
	return mtu, fits
}

// linkOf is t's link as it should be, and has the way to its endpoint measured
// while something answers.
func (e *engine) linkOf(t *running, up bool) link {
	l := link{index: t.index, up: up}
	l.mtu, l.fits = e.tunnelMTU(t)
	if t.path != nil {
		way := t.mtu
		if t.monitor.Status().State != wg.Up || t.part.WG.MTU > 0 {
			way = mtuTo{}
		}
		t.path.want(way)
	}
	return l
}

// How the way to an endpoint is measured: again after measureEvery, after
// measureSoon where nothing was answered; an answer has answerTime.
const (
	measureEvery = 10 * time.Minute
	measureSoon  = time.Minute
	answerTime   = 2 * time.Second
)

// wgBlock is what WireGuard pads packets to.
const wgBlock = 16

// pathMTU measures how large packets through a tunnel may be. Routes do not know
// where somebody on the way drops larger ones and no ICMP comes back to say so.
type pathMTU struct {
	arrives func(ctx context.Context, size int) bool // whether an IP packet of size bytes is answered through the tunnel
	changed func()
	log     *slog.Logger

	asked chan mtuTo // the last that was wanted
	found atomic.Pointer[measured]
}

// measured is what was found: fits is 0 when all arrives that the routes promise.
type measured struct {
	to   mtuTo
	fits int
}

func newPathMTU(arrives func(context.Context, int) bool, changed func(), log *slog.Logger) *pathMTU {
	return &pathMTU{arrives: arrives, changed: changed, log: log, asked: make(chan mtuTo, 1)}
}

// of returns what was measured on the way to; 0 for nothing, or nothing that
// limits. A nil pathMTU has measured nothing.
func (p *pathMTU) of(to mtuTo) int {
	if p == nil {
		return 0
	}
	if f := p.found.Load(); f != nil && f.to == to {
		return f.fits
	}
	return 0
}

// want asks for another way to be measured; the zero mtuTo for none, since
// nothing answers. Only one goroutine calls it.
func (p *pathMTU) want(to mtuTo) {
	select {
	case <-p.asked:
	default:
	}
	p.asked <- to
}

// run measures what is wanted, at once and from time to time, until ctx ends.
func (p *pathMTU) run(ctx context.Context) {
	var now mtuTo
	again := time.NewTimer(measureEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case to := <-p.asked:
			if to == now {
				continue
			}
			now = to
		case <-again.C:
		}
		if now == (mtuTo{}) {
			continue
		}
		again.Reset(p.measure(ctx, now))
	}
}

// measure returns when to measure again.
func (p *pathMTU) measure(ctx context.Context, to mtuTo) time.Duration {
	before := p.of(to)
	fits, ok := largest(to.mtu, before, func(sizes ...int) int { return p.most(ctx, sizes) })
	switch {
	case ctx.Err() != nil || !ok:
		return measureSoon // what was found before still stands
	case fits == to.mtu:
		fits = 0
	}
	p.found.Store(&measured{to, fits})
	if fits != before {
		if fits > 0 {
			p.log.Warn("larger packets are lost on the way, and nobody says so: they are made to fit", "endpoint", to.endpoint, "bytes", fits, "route", to.mtu)
		} else {
			p.log.Info("packets of all sizes arrive again", "endpoint", to.endpoint, "bytes", to.mtu)
		}
		p.changed()
	}
	return measureEvery
}

// most returns the largest of sizes that arrives.
func (p *pathMTU) most(ctx context.Context, sizes []int) int {
	arrived := make(chan int, len(sizes))
	for _, size := range sizes {
		go func() {
			if !p.arrives(ctx, size) {
				size = 0
			}
			arrived <- size
		}()
	}
	best := 0
	for range sizes {
		best = max(best, <-arrived)
	}
	return best
}

// largest returns the size of the largest packet up to top that arrives, to
// within a block of WireGuard's. hint is what was found before, 0 for nothing. It
// reports false when none arrives at all. arrives tries several sizes at a time,
// and returns the largest that arrived, or 0.
func largest(top, hint int, arrives func(sizes ...int) int) (int, bool) {
	if arrives(top) == top {
		return top, true
	}
	// From here on top is among them: the first may have been lost by chance.
	coarse := sizes(top, hint)
	low := arrives(coarse...)
	if low == 0 || low == top {
		return low, low == top
	}
	high := coarse[slices.Index(coarse, low)+1]
	fine := []int{low}
	for n := low/wgBlock*wgBlock + wgBlock; n < high; n += wgBlock {
		fine = append(fine, n)
	}
	return max(low, arrives(append(fine, top)...)), true
}

// sizes returns what is tried at first, in order: what is left by ways of common
// MTUs, what was found before, and top.
func sizes(top, hint int) []int {
	all := []int{leastMTU4, 768, 992, 1120, 1200, 1280, 1328, 1376, 1408, 1424, 1440, 1500, 2000, 3000, 4000, 6000, 8000, hint}
	all = slices.DeleteFunc(all, func(n int) bool { return n >= top || n == 0 })
	all = append(all, top)
	slices.Sort(all)
	return slices.Compact(all)
}
