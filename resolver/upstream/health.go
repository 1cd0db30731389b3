package upstream

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Status is how a server has been doing.
type Status struct {
	Server       string        // its URL
	Proto        string        // "udp", "tcp", "tls", "https", "h3" or "quic"; "" when it is not known
	Addrs        []netip.Addr  // where it listens, as far as that is known; the one in use first
	Up           bool          // false after two failures in a row, until it replies again
	DownSince    time.Time     // zero while it is up
	Latency      time.Duration // moving average until a reply; 0 before the first
	LastError    string        // "" when there was none
	LastErrorAt  time.Time
	Queries      uint64 // asked of it
	Failures     uint64 // without a reply
	SpoofSuspect uint64 // queries during which somebody tried to guess our ID
}

// reporter is an Exchanger that knows how its servers are.
type reporter interface{ report() []Status }

// Health returns the status of each server behind ex, in the order in which
// they were given; nil when ex is of another package.
func Health(ex Exchanger) []Status {
	if r, ok := ex.(reporter); ok {
		return r.report()
	}
	return nil
}

const (
	failuresToDown = 2
	probeFirst     = time.Second     // from the failure to the first probe
	probeMost      = 5 * time.Second // between probes of a server that is down
	refresh        = time.Minute     // until an unused server's latency is measured again
	penalty        = time.Second     // least latency that a refusing server counts with
	weight         = 8               // one eighth of a new latency enters the average
)

// health is a server's record, kept from the queries that were answered or
// not. Packets that matched no query never reach it.
type health struct {
	logger *slog.Logger

	mu     sync.Mutex
	seen   Status
	streak int       // failures since the last reply
	doubt  bool      // the average says nothing about the next reply
	next   time.Time // when to ask it even if another server is better
}

func newHealth(server, proto string, logger *slog.Logger) *health {
	return &health{logger: logger, seen: Status{Server: server, Proto: proto, Up: true}, next: time.Now().Add(refresh)}
}

func (h *health) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen
}

// asked counts a query that begins now.
func (h *health) asked(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.Queries++
	h.postpone(now)
}

// postpone sets when the server is due again.
func (h *health) postpone(now time.Time) {
	wait := refresh
	if h.streak > 0 {
		wait = min(probeFirst<<min(h.streak-1, 8), probeMost)
	}
	h.next = now.Add(wait)
}

// due reports whether the server should be asked for the sake of knowing, and
// if so takes it that it now is. One without a failure is due only where
// latencies matter.
func (h *health) due(now time.Time, latencies bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.next) || h.streak == 0 && !latencies {
		return false
	}
	h.postpone(now)
	return true
}

// replied notes a reply; refused says that it was an error code, which makes
// the server a worse choice without making it down.
func (h *health) replied(took time.Duration, refused bool) {
	if refused {
		took = max(took, penalty)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen.Latency == 0 || h.doubt {
		h.seen.Latency = took
	} else {
		h.seen.Latency += (took - h.seen.Latency) / weight
	}
	if h.streak > 0 || h.doubt {
		h.streak, h.doubt = 0, false
		h.postpone(time.Now())
	}
	if !h.seen.Up {
		h.seen.Up, h.seen.DownSince = true, time.Time{}
		h.logger.Info("upstream is back", "server", h.seen.Server, "latency", took)
	}
}

// failed notes that no reply came.
func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.Failures++
	h.seen.LastError, h.seen.LastErrorAt = err.Error(), time.Now()
	h.seen.Latency = max(h.seen.Latency, penalty)
	h.doubt = true
	h.streak++
	h.postpone(h.seen.LastErrorAt)
	if h.seen.Up && h.streak >= failuresToDown {
		h.seen.Up, h.seen.DownSince = false, h.seen.LastErrorAt
		h.logger.Warn("upstream is down", "server", h.seen.Server, "error", err)
	}
}

// overtaken notes that the server has been silent for so long that another
// one answered instead.
func (h *health) overtaken(elapsed time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.Latency = max(h.seen.Latency, elapsed)
	h.doubt = true
}

// suspect counts a query that somebody tried to spoof.
func (h *health) suspect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.SpoofSuspect++
}
