package daemon

import (
	"context"

	"smartdns/resolver"
	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

// answerer hands accepted queries to the resolver.
type answerer struct {
	resolver *resolver.Resolver
	who      *who
	portal   *portal
}

// Answer implements server.Handler.
func (a answerer) Answer(ctx context.Context, dst []byte, q wire.Query, from server.Client) []byte {
	if all, ok := a.portal.answer(ctx, dst, q, from); ok {
		return all
	}
	return a.resolver.Answer(ctx, dst, q, a.who.client(from.Listener, from.Addr.Addr()), from.Transport)
}
