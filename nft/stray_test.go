package nft_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

const (
	flagFIN = 0x01
	flagACK = 0x10
)

// segment is a TCP segment without data.
type segment struct {
	from, to netip.AddrPort // IPv4
	seq, ack uint32
	flags    byte
}

// send sends the segment from ns as it is.
func (w *world) send(ns netns.NsHandle, s segment) {
	w.t.Helper()
	ip := make([]byte, 20)
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	src, dst := s.from.Addr().As4(), s.to.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	tcp := binary.BigEndian.AppendUint16(nil, s.from.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, s.to.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, s.seq)
	tcp = binary.BigEndian.AppendUint32(tcp, s.ack)
	tcp = append(tcp, 5<<4, s.flags, 0xff, 0xff, 0, 0, 0, 0)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(tcp))
	for _, b := range [][]byte{src[:], dst[:], tcp} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	netnstest.Do(w.t, ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err == nil {
			err = errors.Join(unix.Sendto(fd, append(ip, tcp...), 0, &unix.SockaddrInet4{Addr: dst}), unix.Close(fd))
		}
		if err != nil && !errors.Is(err, unix.EPERM) { // that is: dropped
			w.t.Error(err)
		}
	})
}

// sequences returns the next sequence numbers of a connection, to send and to
// receive.
func sequences(t *testing.T, c net.Conn) (send, receive uint32) {
	t.Helper()
	const receiveQueue, sendQueue, offWithoutProbe = 1, 2, -1
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd, queue int) uint32 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
			t.Error(err)
		}
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Error(err)
		}
		return uint32(n)
	}
	err = raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			t.Error(err)
		}
		send, receive = get(int(fd), sendQueue), get(int(fd), receiveQueue)
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return send, receive
}

func addrPort(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// A FIN outside of the window is of no flow that conntrack knows. A reset as the
// answer to it would reach the connection whose ports it has.
func TestPacketsOfNoFlowDoNotEndTheLiveOne(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	c, err := w.dial(w.gw, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.want("before", w.hear(c, "tcp"), tunnel4)
	seq, ack := sequences(t, c)
	w.send(w.gw, segment{from: addrPort(c.LocalAddr()), to: addrPort(c.RemoteAddr()), seq: seq + 1<<30, ack: ack, flags: flagFIN | flagACK})
	if err := echo(c); err != nil {
		t.Errorf("the live flow: %v", err)
	}
	if n := w.counter(table, "stray_wg0"); n != 1 {
		t.Errorf("%d packets of no flow were counted, want 1", n)
	}
}

// Whoever turned forwarding on lets nobody outside use it, with no packet.
func TestPacketsOfNoFlowDoNotComeIn(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	netnstest.Do(t, w.lan, func() {
		load(t, `table inet sniff { counter seen { }
			chain c { type filter hook prerouting priority -400; ip saddr `+foreign4+` counter name seen; }; }`)
	})
	from, to := netip.MustParseAddrPort(foreign4+":80"), netip.MustParseAddrPort("192.168.8.20:5555")
	for _, flags := range []byte{flagFIN | flagACK, flagACK, flagFIN} {
		w.send(w.net, segment{from: from, to: to, seq: 1, ack: 1, flags: flags})
	}
	soon(t, "three packets are dropped", func() bool {
		return w.counter(table, "invalid")+w.counter(table, "inbound") == 3
	})
	netnstest.Do(t, w.lan, func() {
		if n := packets(t, "sniff", "seen"); n != 0 {
			t.Errorf("%d packets from outside reached the LAN", n)
		}
	})
}

func (w *world) counter(table *nft.Table, name string) (n int) {
	w.t.Helper()
	s, err := table.Observe(w.t.Context())
	if err != nil {
		w.t.Error(err)
	}
	return int(s.Counters[name].Packets)
}

// Other programs save the whole packet mark as the flow's, at any place
// (iptables -j CONNMARK --save-mark without a mask), and so take our field of it.
func TestPacketsOfFlowsWhoseMarkOthersTake(t *testing.T) {
	for what, chain := range map[string]string{
		"prerouting, first": "type filter hook prerouting priority -160",
		"prerouting":        "type filter hook prerouting priority -80",
		"prerouting, last":  "type filter hook prerouting priority 310",
		"input":             "type filter hook input priority 10",
		"forward":           "type filter hook forward priority 10",
		"output":            "type route hook output priority -100",
		"postrouting":       "type filter hook postrouting priority -140",
		"postrouting, last": "type filter hook postrouting priority 310",
	} {
		for _, save := range []string{"ct mark set mark", "ct mark set 0x1"} {
			t.Run(what+": "+save, func(t *testing.T) {
				w := newWorld(t)
				w.set(nft.Owned, gateway())
				leak := w.sniff(foreign4)
				netnstest.Do(t, w.gw, func() {
					load(t, "table inet other { chain c { "+chain+"; "+save+"; }; }")
				})
				for name, ns := range map[string]netns.NsHandle{"LAN": w.lan, "host": w.gw, "container": w.box} {
					c, err := w.dial(ns, "tcp", foreign4+":80", 0)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					w.want(name, w.hear(c, "tcp"), tunnel4)
					for i := range 5 {
						if err := echo(c); err != nil {
							t.Errorf("%s, line %d: %v", name, i, err)
							break
						}
					}
					c.Close()
					w.want(name+" home", w.ask(ns, "tcp", home4+":80"), map[string]string{"LAN": "192.168.8.20", "host": "198.18.0.2", "container": "172.20.0.20"}[name])
				}
				if n := leak(); n != 0 {
					t.Errorf("%d frames on the uplink", n)
				}
			})
		}
	}
}
