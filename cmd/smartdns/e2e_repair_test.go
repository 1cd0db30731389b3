package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// A reload that sends addresses another way has the flows to them begin anew,
// at once, and no others: not those whose way is the same, and none for a mark
// that goes. A flow that nobody has answered follows its address's new mark.
func TestReloadRepairsTheFlowsThatItMoves(t *testing.T) {
	w := newWorld(t)
	w.allowed(func(p lab.Packet) bool { return true }) // each flow says the way that it takes
	w.start()
	w.waitUp()
	plain := w.config
	moved4, moved6 := lab.NumberedAddr(2, false, false), lab.NumberedAddr(2, false, true)
	everywhere := func() []*keptFlow {
		return append(w.keep(lab.AbroadWebV4, lab.AbroadWebV6), w.keep(lab.HomeWebV4, lab.HomeWebV6)...)
	}
	stay := everywhere()
	begin := func(want string, to ...netip.Addr) []*keptFlow {
		t.Helper()
		flows := w.keep(to...)
		for _, f := range flows {
			if way(f.session.Seen) != want {
				t.Fatalf("%s goes %s, want %s", f.name, way(f.session.Seen), want)
			}
		}
		return flows
	}

	move := begin("tunnel", moved4, moved6)
	w.reload(strings.Replace(plain, "addresses = [\n", "addresses = [\n  { match = [\"93.184.0.0/17\", \"2606:2800:220:1:1::/80\"], via = \"direct\" },\n", 1))
	w.beganAnew("a line says direct", move)
	w.goesOn("a line says direct", 100*time.Millisecond, stay)
	move = begin("direct", moved4, moved6)
	w.reload(plain)
	w.beganAnew("the line has gone", move)
	w.goesOn("the line has gone", 100*time.Millisecond, stay)

	w.reload(strings.Replace(plain, `ask = "foreign" }`, `ask = "foreign", via = "direct" }`, 1))
	move = begin("direct", w.resolve("n2.foreign.test", 1), w.resolve("n2.foreign.test", 28))
	w.reload(plain)
	w.beganAnew("the name is no longer pinned", move)
	w.goesOn("the name is no longer pinned", 100*time.Millisecond, stay)

	turned := strings.Replace(plain, `{ match = ["private", "home"], via = "direct" }`, `{ match = "private", via = "direct" }, { match = "home", via = "wg0" }`, 1)
	w.reload(strings.Replace(turned, `{ match = "*",                 via = "wg0" }`, `{ match = "*", via = "direct" }`, 1))
	w.beganAnew("home and abroad were turned around", stay)
	stay = everywhere()
	w.reload(plain)
	w.beganAnew("they were turned back", stay)
	stay = everywhere()

	// The tunnel only for marked addresses: all its other flows move.
	w.reload(marksOnly(plain))
	w.beganAnew("the default path is direct", stay[:4])
	w.goesOn("the default path is direct", 100*time.Millisecond, stay[4:])
	const nobody = 9 // no server has this port
	var silent []net.Conn
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		c, err := from.Dial(w.context(5*time.Second), "udp", netip.AddrPort{}, netip.AddrPortFrom(moved4, nobody))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		silent = append(silent, c)
		w.waitFor("the flow is direct", 5*time.Second, func() error { return w.trySending(c, 1<<24) })
	}
	answered := begin("direct", moved4)
	w.resolve("n2.foreign.test", 1)
	for _, c := range silent {
		w.waitFor("a flow that nobody answered goes through the tunnel", 10*time.Second, func() error { return w.trySending(c, 2<<24) })
	}
	w.goesOn("an address became the tunnel's", 100*time.Millisecond, answered)
}

// beganAnew fails the test for a session that goes on, and for a socket whose
// datagrams still take the way of before.
func (w *world) beganAnew(what string, flows []*keptFlow) {
	w.t.Helper()
	for _, f := range flows {
		begun := time.Now()
		if err := f.session.Say(w.context(5*time.Second), "still here"); err == nil {
			w.t.Errorf("%s: the session from %s goes on", what, f.name)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Errorf("%s: the session from %s hangs: %v after %s", what, f.name, err, time.Since(begun))
		}
		if peer, err := f.who(); err == nil && peer == f.peer {
			w.t.Errorf("%s: the datagrams from %s still come from %s", what, f.name, peer)
		}
	}
}

// trySending sends a datagram, and returns an error unless the kernel has its
// flow with that mark.
func (w *world) trySending(c net.Conn, mark uint32) error {
	if _, err := c.Write([]byte("hello\n")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	all, err := w.Gateway.Netlink().ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		return err
	}
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for _, f := range all {
		if f.Forward.SrcPort == port && f.Forward.DstPort == c.RemoteAddr().(*net.UDPAddr).AddrPort().Port() {
			if f.Mark&0x3f000000 != mark {
				return fmt.Errorf("its mark is %#x", f.Mark)
			}
			return nil
		}
	}
	return errors.New("the kernel does not know it")
}
