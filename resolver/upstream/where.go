package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	addressesLast = time.Hour       // until a name is looked up again, beside the queries
	lookupPause   = 5 * time.Second // least time between two lookups of a name
	lookupTime    = 4 * time.Second // for one
	stagger       = 250 * time.Millisecond
)

// Lookup finds the addresses of a server's name. It must ask over the server's
// own path, and never the resolver that the server is for.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Where is the addresses at which one server listens. It is safe for
// concurrent use.
type Where struct {
	host   string // "" where it is known by address
	port   uint16
	lookup Lookup // nil: the addresses are all there is to know
	notify func([]netip.AddrPort)

	mu    sync.Mutex
	addrs []netip.AddrPort // the one that last worked first
	asked time.Time        // when the name was last looked up
	under *finding         // a lookup under way
}

// finding is one lookup, for whoever waits for it.
type finding struct {
	done chan struct{}
	err  error
}

// At returns where a server is that listens at known addresses.
func At(addrs ...netip.AddrPort) *Where {
	w := &Where{addrs: slices.Clone(addrs)}
	if len(addrs) > 0 {
		w.port = addrs[0].Port()
	}
	return w
}

// Named returns where a server is that is known by name. Without addresses, the
// name is looked up when a query needs it, an hour after that, and when none of
// its addresses can be reached; the last known ones serve meanwhile. Changed,
// unless nil, gets them after each change and before they are used, from any
// goroutine.
func Named(host string, port uint16, addrs []netip.Addr, lookup Lookup, changed func([]netip.AddrPort)) *Where {
	w := &Where{host: host, port: port, notify: changed}
	for _, a := range addrs {
		w.addrs = append(w.addrs, netip.AddrPortFrom(a, port))
	}
	if len(addrs) == 0 {
		w.lookup = lookup
	}
	return w
}

// Known returns the addresses as far as they are known now.
func (w *Where) Known() []netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.addrs)
}

// addresses returns where to try, the most promising first.
func (w *Where) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	w.mu.Lock()
	addrs := w.addrs
	var f *finding
	if w.lookup != nil && (len(addrs) == 0 || time.Since(w.asked) > addressesLast) {
		f = w.find(ctx)
	}
	w.mu.Unlock()
	if len(addrs) > 0 || f == nil {
		return addrs, nil
	}
	return w.await(ctx, f)
}

// again looks the name up once more, for addresses that are not among tried.
func (w *Where) again(ctx context.Context, tried []netip.AddrPort) []netip.AddrPort {
	w.mu.Lock()
	if w.lookup == nil || time.Since(w.asked) < lookupPause && w.under == nil {
		w.mu.Unlock()
		return nil
	}
	f := w.find(ctx)
	w.mu.Unlock()
	addrs, err := w.await(ctx, f)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(addrs, func(a netip.AddrPort) bool { return slices.Contains(tried, a) })
}

func (w *Where) await(ctx context.Context, f *finding) ([]netip.AddrPort, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	return w.Known(), nil
}

// find begins a lookup, or joins the one under way. It does not end with the
// query that happened to need it. The caller holds the lock.
func (w *Where) find(ctx context.Context) *finding {
	if w.under != nil {
		return w.under
	}
	f := &finding{done: make(chan struct{})}
	if !w.asked.IsZero() && time.Since(w.asked) < lookupPause && len(w.addrs) == 0 {
		f.err = fmt.Errorf("the address of %s is not known", w.host)
		close(f.done)
		return f
	}
	w.under, w.asked = f, time.Now()
	ctx, cancel := context.WithTimeoutCause(withTrip(context.WithoutCancel(ctx), newTrip()), lookupTime, errNoReply)
	go func() {
		defer cancel()
		found, err := w.lookup(ctx, w.host)
		if err == nil && len(found) == 0 {
			err = errors.New("it has none")
		}
		changed := false
		w.mu.Lock()
		w.under = nil
		if err != nil {
			f.err = fmt.Errorf("finding the address of %s: %w", w.host, err)
		} else {
			changed = w.take(found)
		}
		w.mu.Unlock()
		if changed && w.notify != nil {
			w.notify(w.Known())
		}
		close(f.done)
	}()
	return f
}

// take replaces the addresses and reports whether they are others now.
func (w *Where) take(found []netip.Addr) bool {
	var addrs []netip.AddrPort
	for _, a := range found {
		if p := netip.AddrPortFrom(a.Unmap(), w.port); !slices.Contains(addrs, p) {
			addrs = append(addrs, p)
		}
	}
	same := func(a, b []netip.AddrPort) bool {
		return !slices.ContainsFunc(a, func(p netip.AddrPort) bool { return !slices.Contains(b, p) })
	}
	if same(addrs, w.addrs) && same(w.addrs, addrs) {
		return false
	}
	w.addrs = addrs
	return true
}

// worked remembers an address as the one to try first.
func (w *Where) worked(a netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.addrs, a); i > 0 {
		w.addrs = append([]netip.AddrPort{a}, slices.Delete(slices.Clone(w.addrs), i, i+1)...)
	}
}

// failed puts an address behind the others, and looks the name up again beside
// the queries.
func (w *Where) failed(ctx context.Context, a netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.addrs, a); i >= 0 && len(w.addrs) > 1 {
		w.addrs = append(slices.Delete(slices.Clone(w.addrs), i, i+1), a)
	}
	if w.lookup != nil && time.Since(w.asked) >= lookupPause {
		w.find(ctx)
	}
}

// connect opens a connection to whichever address of w is the first to
// give one: each is tried when those before it have failed, or have been
// silent for 250 ms (RFC 8305 section 5). Then a name is looked up again. Drop
// closes a connection that came too late.
func connect[T any](ctx context.Context, w *Where, dial func(context.Context, netip.AddrPort) (T, error), drop func(T)) (T, error) {
	addrs, err := w.addresses(ctx)
	if err != nil {
		var none T
		return none, err
	}
	conn, err := connectAny(ctx, w, addrs, dial, drop)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if more := w.again(ctx, addrs); len(more) > 0 {
		return connectAny(ctx, w, more, dial, drop)
	}
	return conn, err
}

func connectAny[T any](ctx context.Context, w *Where, addrs []netip.AddrPort, dial func(context.Context, netip.AddrPort) (T, error), drop func(T)) (T, error) {
	if len(addrs) == 1 {
		return dial(ctx, addrs[0])
	}
	type result struct {
		conn T
		err  error
		addr netip.AddrPort
	}
	// A connection that is returned must not end with this.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addrs))
	left, running := addrs, 0
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	next := func() {
		if len(left) == 0 {
			return
		}
		addr := left[0]
		left = left[1:]
		running++
		timer.Reset(stagger)
		go func() {
			conn, err := dial(ctx, addr)
			results <- result{conn, err, addr}
		}()
	}
	var errs several
	next()
	for running > 0 {
		select {
		case r := <-results:
			running--
			if r.err == nil {
				w.worked(r.addr)
				late := running
				go func() {
					for range late {
						if r := <-results; r.err == nil {
							drop(r.conn)
						}
					}
				}()
				return r.conn, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", r.addr.Addr(), r.err))
			next()
		case <-timer.C:
			next()
		}
	}
	var none T
	return none, errs.or(errNoReply)
}
