package daemon

import (
	"log/slog"
	"net/netip"
	"time"

	"smartdns/configs"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// builtSides is what asks the servers of each side, by its name. It goes on over
// reloads: its connections, and what is known of the servers' health.
type builtSides map[string]builtSide

// builtSide is one of them, and all that it was made of.
type builtSide struct {
	way     sideWay
	servers upstream.Exchanger
	judge   upstream.Exchanger // of the foreign side: those that honour client subnets; nil: none does
}

// sideWay says whom a side asks, and how. What the file says else of it
// concerns the resolver.
type sideWay struct {
	side         configs.Side
	mark, around uint32 // of sockets on the side's path, and on the direct one
}

func sideWayOf(s configs.Side, m marks) sideWay {
	s.Pos, s.ECS, s.Private = configs.Pos{}, configs.ECS{}, false
	return sideWay{side: s, mark: m.of(s.Via), around: m.of(routing.Direct)}
}

// drainBut ends the connections of the sides that are not in kept.
func (b builtSides) drainBut(kept builtSides) {
	for name, s := range b {
		if kept[name].servers != s.servers {
			upstream.Drain(s.servers)
		}
	}
}

// asking is what sides are built with.
type asking struct {
	marks   marks
	outlets outlets
	found   func([]netip.AddrPort) // learns the addresses of servers by name
	now     func() time.Time       // for certificates; nil: the system's clock
	log     *slog.Logger
}

// asking is what sides are built with that carry the marks m.
func (e *engine) asking(m marks) asking { return asking{m, e.outlets, e.found, e.clock.Now, e.log} }
