// Package wg runs one end of a WireGuard tunnel: it reads the provider's
// wg-quick file, makes the kernel's device or one in this process, keeps it as
// the file says, finds an endpoint that answers, and says whether it is up.
package wg

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Config is a valid wg-quick file. It holds no text that is not understood.
type Config struct {
	File       string // its base name, for messages
	PrivateKey Secret
	ListenPort uint16         // 0: any
	Addresses  []netip.Prefix // with their host bits, in the order of the file
	DNS        []netip.Addr   // not applied by this package
	Search     []string       // DNS entries that are no address
	MTU        int            // 0: not said
	Peers      []Peer         // in the order of the file
	Quick      Quick
	notes      []Note
}

// Quick holds what wg-quick(8) does beyond the device itself.
type Quick struct {
	Table      string // "", "auto", "off", "main" or a number
	FwMark     uint32 // the bits that are nobody else's are applied; see Options
	SaveConfig bool
	Hooks      []Hook // in the order of the file
}

// Hook is one PreUp, PostUp, PreDown or PostDown line.
type Hook struct {
	Key     string // as wg-quick(8) spells it
	Command Command
	Line    int
}

// Command is a root shell's command. It may hold a key, so it prints as
// "(hidden)"; convert it to a string to have its text.
type Command string

func (Command) String() string { return hidden }

// Format hides the command from every verb.
func (Command) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText hides the command from every encoder.
func (Command) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Peer is one [Peer] section.
type Peer struct {
	PublicKey    PublicKey
	PresharedKey Secret         // zero: none
	AllowedIPs   []netip.Prefix // masked, sorted, each at no other peer
	Endpoint     Endpoint       // zero: the peer calls us
	Keepalive    time.Duration  // 0: off; whole seconds, at most 65535
	Line         int            // of its section
}

// Endpoint is where a peer is called: an address, or a name that has to be
// resolved first.
type Endpoint struct {
	Host string // "" for no endpoint
	Port uint16
}

// Literal returns the address of an endpoint that needs no resolving.
func (e Endpoint) Literal() (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(e.Host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, e.Port), true
}

// IsName reports whether e has to be resolved.
func (e Endpoint) IsName() bool {
	_, literal := e.Literal()
	return e.Host != "" && !literal
}

func (e Endpoint) String() string {
	if a, ok := e.Literal(); ok {
		return a.String()
	}
	if e.Host == "" {
		return ""
	}
	return e.Host + ":" + strconv.Itoa(int(e.Port))
}

// Note is a sentence about a line of the file that does not do what its writer
// may expect.
type Note struct {
	File string
	Line int
	Text string
}

func (n Note) String() string { return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Text) }

// Notes says what of the file is understood and not applied, in the order of
// its lines. It holds no secrets.
func (c *Config) Notes() []Note { return c.notes }

// HookNotes says which commands are not run unless they are allowed.
func (c *Config) HookNotes() []Note {
	var all []Note
	for _, h := range c.Quick.Hooks {
		all = append(all, Note{File: c.File, Line: h.Line, Text: h.Key + " is not run without hooks = true: smartdns makes addresses, routes and rules itself"})
	}
	return all
}

// Main returns the peer that carries the tunnel: the one with the widest
// AllowedIPs, the first of several. It reports false when there is no peer.
func (c *Config) Main() (Peer, bool) {
	best, at := 129, -1
	for i, p := range c.Peers {
		for _, a := range p.AllowedIPs {
			if a.Bits() < best {
				best, at = a.Bits(), i
			}
		}
	}
	switch {
	case at >= 0:
		return c.Peers[at], true
	case len(c.Peers) > 0:
		return c.Peers[0], true
	}
	return Peer{}, false
}

// Same reports whether the two files ask for the same device, wherever in them
// their lines stand.
func (c *Config) Same(o *Config) bool { return reflect.DeepEqual(c.bare(), o.bare()) }

// bare is c without what is only for messages.
func (c *Config) bare() Config {
	b := *c
	b.File, b.notes, b.Quick = "", nil, Quick{FwMark: c.Quick.FwMark}
	b.Peers = slices.Clone(c.Peers)
	for i := range b.Peers {
		b.Peers[i].Line = 0
	}
	return b
}
