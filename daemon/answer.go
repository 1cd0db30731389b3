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
}

// Answer implements server.Handler.
func (a answerer) Answer(ctx context.Context, q wire.Query, from server.Client) []byte {
	query, err := resolver.NewQuery(q, from.Addr.Addr(), from.Transport)
	if err != nil {
		return wire.AppendError(nil, q, wire.FormErr, -1, "")
	}
	query.From = a.who.client(from.Listener, from.Addr.Addr())
	return a.resolver.Resolve(ctx, query).Reply(nil, query)
}
