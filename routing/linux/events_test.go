package linux

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
)

// A buffer that overflowed is one event, and not the last (SECURITY F-17).
func TestEventsGoOnAfterAnOverflow(t *testing.T) {
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		w, err := subscribe()
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(int(w.f.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Fatal(err)
		}
		// Fd made it blocking.
		if err := unix.SetNonblock(int(w.f.Fd()), true); err != nil {
			t.Fatal(err)
		}
		add := func(pref int) {
			r := netlink.NewRule()
			r.Priority, r.Table, r.Family = pref, 77, netlink.FAMILY_V4
			if err := netlink.RuleAdd(r); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			add(100 + i)
		}
		if _, err := w.f.Read(make([]byte, 16)); err == nil {
			// The overflow is told before the messages that were kept.
			t.Fatal("the buffer did not overflow")
		}
		w.wg.Go(w.run)
		defer w.close()
		await(t, w.ch)
		for len(w.ch) > 0 {
			<-w.ch
		}
		add(1000)
		await(t, w.ch)
	})
}

func await(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case _, ok := <-ch:
		if !ok {
			t.Fatal("the events ended")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
}

func TestEventsEndWithClose(t *testing.T) {
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		w, err := watch()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if _, ok := <-w.ch; ok {
			t.Error("an event after close")
		}
	})
}
