// Package routing says which way packets leave this host: it plans the links,
// addresses, routes, rules and sysctls that should be there, and turns the
// difference from what is there into steps.
package routing

import (
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// Path is a way out of this host: Direct, or a tunnel called by its interface
// name.
type Path string

// Direct is the path of the main routing table.
const Direct Path = "direct"

// IsTunnel reports whether p names a tunnel.
func (p Path) IsTunnel() bool { return p != "" && p != Direct }

// Mark ties an address to a path in the kernel for Life. The zone of Addr is
// empty and a v4 address is never v4-mapped.
type Mark struct {
	Addr netip.Addr
	Path Path
	Life time.Duration
}

// Owner says on whose behalf marks are made; 0 is nobody. Its value means
// nothing but that equal ones are the same.
type Owner uint64

// A Step is one change to the kernel. It prints as the command that would make
// that change, and is the very value that the kernel edge executes.
type Step interface {
	fmt.Stringer
}

// MaxTunnels is how many tunnels one host can have: tunnel n (from 0) has mark
// value n+2, table 52001+n and rules 5101+2n, 5102+2n.
const MaxTunnels = 16

// Values of our field of the fwmark and of the conntrack mark. Tunnel n has
// FirstTunnel+n.
const (
	MarkDirect    = 1  // as a packet mark only on our own sockets
	FirstTunnel   = 2  // the first tunnel
	FirstStood    = 32 // a flow of the first tunnel that goes by its stand-in, another tunnel
	MarkRevocable = 63 // a flow that goes direct only while its tunnel is down
)

// Field is the part of a 32-bit mark that is ours, given as its mask: one run
// of at least six bits. The rest of every mark belongs to others and is kept.
type Field uint32

// DefaultField is clear of wg-quick (0xca6c), tailscale (0xff0000),
// Kubernetes (0x4000, 0x8000), mwan3 (0x3f00) and cilium (0x0f00).
const DefaultField Field = 0x3f000000

// Value returns the mark whose field holds n.
func (f Field) Value(n uint32) uint32 { return n << bits.TrailingZeros32(uint32(f)) & uint32(f) }

// Tunnel returns the mark of tunnel n, counted from 0.
func (f Field) Tunnel(n int) uint32 { return f.Value(FirstTunnel + uint32(n)) }

// Stood returns the flow mark of what belongs into tunnel n, counted from 0, and
// goes by another tunnel while n is down. Packets carry the other's mark.
func (f Field) Stood(n int) uint32 { return f.Value(FirstStood + uint32(n)) }

// Standing returns the mask and the value under it of every Stood mark.
func (f Field) Standing() (mask, value uint32) {
	return f.Value(FirstStood | MaxTunnels), f.Value(FirstStood)
}

// Format returns v/mask as iproute2 prints it.
func (f Field) Format(v uint32) string { return fmt.Sprintf("%#x/%#x", v, uint32(f)) }
