package resolver

import (
	"context"
	"fmt"

	"smartdns/resolver/cache"
)

// only asks the side of the client's listener, and nobody else whatever it
// answers.
func (r *Resolver) only(ctx context.Context, t *task) outcome {
	return r.alone(ctx, t, t.view.Side)
}

// alone is what a side answers, whatever that is.
func (r *Resolver) alone(ctx context.Context, t *task, side string) outcome {
	t.side = side
	out := r.settle(ctx, t, t.side, forAnswer)
	if out.kind == cache.Doubt.String() {
		out = r.settle(ctx, t, t.side, forDoubt)
	}
	if out.err == nil && out.suspect.never {
		out.err = fmt.Errorf("%w (%s)", errForged, out.suspect.why)
	}
	return out
}
