package hostdns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// settle is how long a rewrite gets to be finished: programs remove, create
	// and fill in several calls.
	settle = 200 * time.Millisecond
	// latest is when we answer at any rate, counted from the first sign.
	latest = 800 * time.Millisecond
	// A fight with another program helps nobody: after so many answers in so
	// long we warn and stop.
	mostAnswers = 5
	inSo        = time.Minute
)

// Run does what Set does when others changed whom this host asks, or a program
// that says so came up, at most 5 times a minute; after that it warns, and
// leaves everything alone until the next Set. It returns when ctx ends, with its
// error, or when the directory of resolv.conf cannot be watched.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	signs, err := watch(ctx, h.o.Path)
	if err != nil {
		return fmt.Errorf("watching resolv.conf: %w", err)
	}
	if h.o.Bus != "" {
		others.Go(func() { busSigns(ctx, h.o.Bus, signs) })
	}
	h.assert() // what happened since Set
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first time.Time // the first sign that was not dealt with; zero: none
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-signs:
			if err != nil {
				return errors.Join(ctx.Err(), err)
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(settle, max(0, time.Until(first.Add(latest)))))
		case <-timer.C:
			first = time.Time{}
			h.assert()
		}
	}
}

// assert does what Set does, unless there were too many changes.
func (h *Host) assert() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(h.err, ErrContested) {
		return
	}
	if !h.allowedLocked(time.Now()) {
		now := Look(context.Background(), h.o.Path, h.o.Bus, h.o.Servers...)
		if now.Asks {
			return
		}
		by := now.By
		if by == "" || by == bySystemd { // that only does as it is told
			by = "somebody"
		}
		h.err = fmt.Errorf("%s: %s %w: more than %d times in a minute; stop that program, or set [listen] system = false", h.o.Path, by, ErrContested, mostAnswers)
		h.o.Logger.Warn("this host no longer asks us", "err", h.err)
		h.tellLocked()
		return
	}
	before := h.err
	changed, err := h.setLocked()
	h.err = err
	if len(changed) > 0 {
		h.recent = append(h.recent, time.Now())
		h.o.Logger.Info("somebody changed whom this host asks; it is us again", "by", strings.Join(changed, ", "))
	}
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		h.o.Logger.Warn("this host no longer asks us", "err", err)
	case err == nil && before == nil && len(changed) == 0:
		return // our own change
	}
	h.tellLocked()
}

func (h *Host) tellLocked() {
	if h.o.Changed != nil {
		h.o.Changed(h.err)
	}
}

// allowedLocked reports whether one more answer is within the limit.
func (h *Host) allowedLocked(now time.Time) bool {
	for len(h.recent) > 0 && now.Sub(h.recent[0]) >= inSo {
		h.recent = h.recent[1:]
	}
	return len(h.recent) < mostAnswers
}
