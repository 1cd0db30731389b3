package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Sniffer sees every frame that the gateway sends on its uplink, and counts
// those that may not be there. Allowed are only:
//
//   - ARP and neighbour discovery of the uplink's own prefixes (asking for
//     another address means that packets would follow), router discovery, DHCP,
//     IGMP and MLD
//   - UDP to the WireGuard endpoint
//   - port 53 of the domestic DNS servers
//   - the servers at home
//   - replies of inbound sessions that a test opened
//   - ICMP errors about packets whose answer would be allowed
//   - what a test allows with Allow
//
// Its methods may be called concurrently.
type Sniffer struct {
	tap     *tap
	out     *tap // on the gateway's uplink, for markers
	marks   chan marker
	nonce   uint64
	flushMu sync.Mutex // one barrier at a time

	mu      sync.Mutex // guards following
	leaks   int
	frames  []string
	inbound map[flow]bool
	allow   []func(Packet) bool
	forbid  []func(Packet) bool
}

// flow is a packet's protocol and ends.
type flow struct {
	proto    uint8
	src, dst netip.AddrPort
}

const (
	maxFrames  = 64     // kept as text
	markerType = 0x88b5 // IEEE 802 local experimental
	snapLen    = 512
)

func newSniffer(isp *Namespace, ispLink string, gateway *Namespace) (*Sniffer, error) {
	t, err := openTap(isp, ispLink, snifferFilter())
	if err != nil {
		return nil, fmt.Errorf("opening the leak sniffer: %w", err)
	}
	out, err := openTap(gateway, uplinkName, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the sniffer's marker socket: %w", err), t.Close())
	}
	return &Sniffer{
		tap: t, out: out, marks: make(chan marker, 256),
		nonce: uint64(time.Now().UnixNano()), inbound: map[flow]bool{},
	}, nil
}

// snifferFilter drops in the kernel what is allowed and comes in bulk, so that
// megabytes through the tunnel do not push a leak out of the queue.
func snifferFilter() []bpf.Instruction {
	home4 := homePrefixes[0].Addr().As4()
	home6 := homePrefixes[1].Addr().As16()
	endpoint := Endpoint.Addr().As4()
	const l3 = ethHeader
	return []bpf.Instruction{
		/*  0 */ bpf.LoadAbsolute{Off: 12, Size: 2},
		/*  1 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv6, SkipTrue: 12},
		/*  2 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv4, SkipTrue: 13},
		/*  3 */ bpf.LoadAbsolute{Off: l3 + 16, Size: 2},
		/*  4 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(home4[:])), SkipTrue: 12},
		/*  5 */ bpf.LoadAbsolute{Off: l3 + 16, Size: 4},
		/*  6 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(endpoint[:]), SkipTrue: 9},
		/*  7 */ bpf.LoadAbsolute{Off: l3, Size: 2}, // version, header length, TOS
		/*  8 */ bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xff00},
		/*  9 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x4500, SkipTrue: 6},
		/* 10 */ bpf.LoadAbsolute{Off: l3 + 9, Size: 1},
		/* 11 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 4},
		/* 12 */ bpf.LoadAbsolute{Off: l3 + 22, Size: 2},
		/* 13 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(Endpoint.Port()), SkipTrue: 3, SkipFalse: 2},
		/* 14 */ bpf.LoadAbsolute{Off: l3 + 24, Size: 4},
		/* 15 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(home6[:]), SkipTrue: 1},
		/* 16 */ bpf.RetConstant{Val: snapLen},
		/* 17 */ bpf.RetConstant{Val: 0},
	}
}

// run reads until the tap is closed.
func (s *Sniffer) run() {
	buf := make([]byte, snapLen)
	for {
		n, err := s.tap.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the link goes down
		}
		if err != nil {
			return
		}
		p := parseFrame(buf[:n])
		if p.EtherType == markerType {
			if m, ok := parseMarker(buf[ethHeader:n]); ok && m.nonce == s.nonce {
				s.marks <- m
			}
			continue
		}
		s.mu.Lock()
		if !s.allowedLocked(p) {
			s.countLocked(1, p.String())
		}
		s.mu.Unlock()
	}
}

func (s *Sniffer) countLocked(n int, frame string) {
	s.leaks += n
	if len(s.frames) < maxFrames {
		s.frames = append(s.frames, frame)
	}
}

func (s *Sniffer) allowedLocked(p Packet) bool {
	if slices.ContainsFunc(s.forbid, func(f func(Packet) bool) bool { return f(p) }) {
		return false
	}
	if linkUpkeep(p) || fixedAllowed(p) || s.inbound[flow{p.Proto, p.from(), p.to()}] {
		return true
	}
	for _, f := range s.allow {
		if f(p) {
			return true
		}
	}
	if q, ok := p.quoted(); ok {
		return s.allowedLocked(q.reversed())
	}
	return false
}

// linkUpkeep reports whether p is what every host sends on a link.
func linkUpkeep(p Packet) bool {
	if p.Target.IsValid() {
		on4, _ := UplinkV4.Prefix(24)
		on6, _ := UplinkV6.Prefix(64)
		return on4.Contains(p.Target) || on6.Contains(p.Target) || p.Target.IsLinkLocalUnicast()
	}
	switch p.Proto {
	case 0:
		return p.EtherType == unix.ETH_P_ARP
	case unix.IPPROTO_IGMP:
		return p.Dst.IsMulticast()
	case unix.IPPROTO_ICMPV6:
		mld := p.Type >= 130 && p.Type <= 132 || p.Type == 143
		discovery := p.Type >= 133 && p.Type <= 137
		return (mld || discovery) && !p.Fragment
	case unix.IPPROTO_UDP:
		return p.SrcPort == 68 && p.DstPort == 67 || p.SrcPort == 546 && p.DstPort == 547
	}
	return false
}

func fixedAllowed(p Packet) bool {
	switch {
	case IsHome(p.Dst):
		return true
	case p.Proto == unix.IPPROTO_UDP && p.to() == Endpoint:
		return true
	case p.Proto == unix.IPPROTO_UDP || p.Proto == unix.IPPROTO_TCP:
		return p.DstPort == 53 && slices.Contains(domesticDNS, p.Dst)
	}
	return false
}

// Allow makes frames for which f reports true no leaks, from now on.
func (s *Sniffer) Allow(f func(Packet) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allow = append(s.allow, f)
}

// Forbid makes frames for which f reports true leaks, from now on, whatever
// allows them. The tunnel's and those to the servers at home are not looked at.
func (s *Sniffer) Forbid(f func(Packet) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbid = append(s.forbid, f)
}

// AllowReplies makes the packets from local to remote no leaks: those of a
// session that remote opened. proto is an IP protocol number.
func (s *Sniffer) AllowReplies(proto uint8, remote, local netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbound[flow{proto, local, remote}] = true
}

// Leaks returns how many frames that are not allowed the gateway has sent since
// the start or the last Reset. Every frame is counted that was sent, or caused
// by a packet sent to the gateway, before the call. What the sniffer itself may
// have missed counts as leaks too.
func (s *Sniffer) Leaks() int {
	err := s.flush()
	lost, lerr := s.tap.lost()
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost > 0 {
		s.countLocked(lost, fmt.Sprintf("the sniffer's queue was full: %d frames lost", lost))
	}
	if err := errors.Join(err, lerr); err != nil {
		s.countLocked(1, "the sniffer is blind: "+err.Error())
	}
	return s.leaks
}

// Frames returns the first leaks as text, at most 64.
func (s *Sniffer) Frames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.frames)
}

// Reset forgets the leaks of everything sent before the call. What a probe of
// before provokes later is counted: over UDP, the true answer that follows a
// forged one meets a closed socket, which the asker's host reports by ICMP
// (AskAll waits for it).
func (s *Sniffer) Reset() {
	s.Leaks()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaks, s.frames = 0, nil
}

func (s *Sniffer) close() error { return errors.Join(s.tap.Close(), s.out.Close()) }
