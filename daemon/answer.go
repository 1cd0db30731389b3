package daemon

import (
	"context"

	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
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
	client := a.who.client(from.Listener, from.Addr.Addr())
	if from.Addr.Addr().IsLoopback() && a.portal.opened() != nil && !a.tunnelled(q, client) {
		if all, ok := a.portal.answer(ctx, dst, q, from); ok {
			return all
		}
	}
	return a.resolver.Answer(ctx, dst, q, client, from.Transport)
}

// tunnelled reports whether a line of the file sends this very name through a
// tunnel: a login does without it.
func (a answerer) tunnelled(q wire.Query, c policy.Client) bool {
	name, _, err := dnsname.FromWire(q.Name())
	if err != nil {
		return false
	}
	_, yes := a.resolver.Tunnelled(name, c)
	return yes
}
