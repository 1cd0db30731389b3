// Package hostdns makes this host ask us, by whoever says whom it asks:
// systemd-resolved and NetworkManager are told over D-Bus, and everybody else's
// resolv.conf is replaced. It keeps that so, and puts back what was.
//
// Nobody's program is run for it: openresolv and Debian's resolvconf have no
// other interface than their command, so theirs is a resolv.conf as any other.
package hostdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// ErrNotOurs is matched by the errors of a resolv.conf that must not, or
// cannot, be written: an immutable or read-only one, or one of a program that
// would write it again at once. They say what to do instead.
var ErrNotOurs = errors.New("not ours to write")

// ErrContested is matched by what Err says after giving up.
var ErrContested = errors.New("keeps changing it")

// Options says whom this host is to ask, and where that is said.
type Options struct {
	Path    string       // the resolv.conf; nsswitch.conf is beside it
	Saved   string       // where what it was is kept, and, with more letters, what others were told; the directory must outlive a reboot
	Servers []netip.Addr // where we listen on port 53, at most three; not unspecified ones
	Search  []string     // in the place of the host's own search list; nil keeps that
	Link    string       // whose servers systemd-resolved takes us for: a tunnel of ours, else the uplink
	Bus     string       // D-Bus address of the system bus; "" asks no program
	Logger  *slog.Logger
	// Changed is told the Err of each change by others that Run dealt with.
	// nil: nobody. It must not block.
	Changed func(error)
}

// Host is this host's resolver. Its methods may be called concurrently.
type Host struct {
	o Options

	mu     sync.Mutex // guards following
	recent []time.Time
	err    error
}

// New returns a Host for o; nothing is changed yet. Only Path, Saved and Bus are
// needed for Restore.
func New(o Options) *Host { return &Host{o: o} }

// hand is one place that says whom this host asks.
type hand interface {
	// set makes it name us, after it kept what it said, and reports whether it
	// had to change anything.
	set(context.Context) (changed bool, err error)
	// restore makes it say what it said before us, unless it no longer names us,
	// and forgets that. Where nothing was kept, it does nothing.
	restore(context.Context) error
	String() string
}

// patience is how long all programs together have for an answer.
const patience = 5 * time.Second

// Set finds out who says whom this host asks, keeps that, and makes it say us
// and nobody else, with the search list and options it had. It is idempotent,
// and knows what a killed run of ours left. The error matches ErrNotOurs when
// resolv.conf is not ours to write; then nothing is changed.
func (h *Host) Set() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = nil
	_, h.err = h.setLocked()
	return h.err
}

// Err says why this host does not ask us, or nil.
func (h *Host) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// setLocked returns what had to be changed.
func (h *Host) setLocked() (changed []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b := dial(ctx, h.o.Bus)
	defer b.close()
	var errs []error
	for _, hand := range h.o.hands(ctx, b) {
		did, err := hand.set(ctx)
		if did {
			changed = append(changed, hand.String())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", hand, withRight(err)))
		}
	}
	return changed, errors.Join(errs...)
}

// hands are those that must name us on this host, as it is now.
func (o Options) hands(ctx context.Context, b bus) []hand {
	var all []hand
	seen := look(o.Path)
	if b.has(ctx, resolvedName) && (seen.by == bySystemd || nssAsksResolved(o.Path)) {
		all = append(all, resolved{o, b})
		if seen.stub {
			return all
		}
	}
	if seen.by == byNetworkManager && b.has(ctx, nmName) && nmWrites(ctx, b) {
		return append(all, networkManager{o, b})
	}
	return append(all, file{o})
}

// Kept returns the commands that do what Restore does over D-Bus, for what is
// kept there.
func (h *Host) Kept() []string {
	var all []string
	var link formerLink
	if known, err := readSaved(resolved{o: h.o}.saved(), &link); known && err == nil {
		all = append(all, "resolvectl revert "+link.Link)
		if was := texts(addrs(link.Former.DNS)); len(was) > 0 {
			all = append(all, "resolvectl dns "+link.Link+" "+strings.Join(was, " "))
		}
	}
	var global formerGlobal
	if known, err := readSaved(networkManager{o: h.o}.saved(), &global); known && err == nil {
		all = append(all, "busctl set-property "+nmName+" "+string(nmPath)+" "+nmName+" "+nmGlobal+" a{sv} 0")
	}
	return all
}

// Restore makes everything as it was before Set, byte for byte in the case of a
// file, with its mode and owner, unless somebody has changed it since. It is
// idempotent; also cleanup and the next start after a crash call it.
func (h *Host) Restore() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b := dial(ctx, h.o.Bus)
	defer b.close()
	var errs []error
	// The file last: programs may write it after what they are told.
	for _, hand := range []hand{resolved{h.o, b}, networkManager{h.o, b}, file{h.o}} {
		if err := hand.restore(ctx); err != nil {
			errs = append(errs, fmt.Errorf("restoring %s: %w", hand, withRight(err)))
		}
	}
	return errors.Join(errs...)
}
