package upstream

import (
	"context"
	"errors"
	"time"

	"smartdns/resolver/wire"
)

// patience is how long a connection that was open already may take to reply
// before a new one is tried beside it: its far end may have forgotten it.
const patience = time.Second

// kept is what keeps connections to a server.
type kept interface {
	// get returns a way for one more query: a kept one that began after the
	// given time, or a new one. reused tells which.
	get(ctx context.Context, t trip, after time.Time) (w way, reused bool, err error)
	// drain retires all of them.
	drain()
}

// way is a connection that carries many queries at a time.
type way interface {
	// start sends msg and has one answer sent to done, which has room for it.
	// The answer comes at the latest when ctx ends, or never after stop.
	start(ctx context.Context, msg []byte, t trip, done chan<- answer) (stop func())
	// retire lets the way take no new queries.
	retire()
}

// exchangeKept asks over a kept connection. When that is lost, or was open already
// and stays silent, it asks once more over a new one; note says so.
func exchangeKept(ctx context.Context, k kept, msg []byte, t trip) (reply []byte, note string, err error) {
	answers := make(chan answer, 2)
	begun := time.Now()
	first, reused, err := k.get(ctx, t, time.Time{})
	if err != nil {
		return nil, "", err
	}
	defer first.start(ctx, msg, t, answers)()
	var silent <-chan time.Time
	if reused {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		silent = timer.C
	}
	pending := 1
	stop := func() {}
	defer func() { stop() }()
	again := func(why string) {
		if note != "" {
			return
		}
		second, _, err := k.get(ctx, t, begun)
		if err != nil {
			return
		}
		stop = second.start(ctx, msg, t, answers)
		note = why
		pending++
	}
	for pending > 0 {
		select {
		case a := <-answers:
			if a.err == nil {
				return a.msg, note, nil
			}
			pending--
			err = a.err
			if errors.Is(err, errLost) {
				again("connection was lost, asked over a new one")
			}
		case <-silent:
			first.retire()
			again("connection was silent, asked over a new one")
		case <-ctx.Done():
			return nil, note, context.Cause(ctx)
		}
	}
	return nil, note, err
}

// exchangeEDNS is exchangeKept for servers that may not know EDNS: FORMERR is
// answered by asking once without OPT (RFC 6891 section 7). That is not
// remembered, so that no reply can switch EDNS off for the next query.
func exchangeEDNS(ctx context.Context, k kept, msg []byte, t trip) (reply []byte, note string, err error) {
	reply, note, err = exchangeKept(ctx, k, msg, t)
	bare := errors.Is(err, errBare)
	if !wire.HasOPT(msg) || !bare && (err != nil || wire.RCode(reply) != wire.FormErr) {
		return reply, note, err
	}
	other, _, again := exchangeKept(ctx, k, wire.AppendWithoutOPT(nil, msg), t)
	if again != nil {
		return reply, note, err
	}
	return other, "FORMERR to EDNS, asked without", nil
}

// keptServer is a server asked over kept connections only: tcp, tls, https, h3
// and quic.
type keptServer struct {
	*server
	kept kept
}

func (s *keptServer) Exchange(ctx context.Context, q Query) (Reply, error) {
	if wire.Question(q.Msg) == nil {
		return Reply{}, errNoQuestion
	}
	start := time.Now()
	s.health.asked(start)
	limited, cancel := context.WithTimeoutCause(ctx, s.config.Timeouts.Total, errNoReply)
	defer cancel()
	msg, note, err := exchangeEDNS(limited, s.kept, q.Msg, q.trip(ctx))
	reply := Reply{Tries: []Try{{
		Server: s.config.Text, Proto: s.config.Scheme, Took: time.Since(start), Note: note, Err: err,
	}}}
	if err == nil {
		wire.CopyQuestion(msg, q.Msg)
		reply.Msg = msg
		reply.Suspicious = q.Suspect != nil && q.Suspect(s.config.Text, msg)
	}
	s.settle(ctx, start, &reply, err)
	return reply, err
}
