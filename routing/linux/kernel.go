// Package linux is the kernel that routing plans for: links, addresses, routes,
// rules and sysctls of the network namespace of the process.
package linux

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Kernel is a routing.Kernel over netlink and /proc/sys. Its methods are safe
// for concurrent use. They must be called in the network namespace in which it
// was opened: netlink would not mind, but /proc/sys shows that of the caller.
type Kernel struct {
	h       *netlink.Handle
	strict  *netlink.Handle          // dumps filtered by the kernel; rules cannot be dumped with it
	sockets map[int]*nl.SocketHandle // for what netlink.Handle cannot say
	events  *watcher
	saved   *savedSysctls
}

var _ routing.Kernel = (*Kernel)(nil)

// Open returns the kernel of the calling thread's network namespace. The file
// saved keeps the values that sysctls had before us for as long as we change
// them; it must outlive the process, but not a reboot (/run does both). Nothing
// is written before a step needs it.
func Open(saved string) (*Kernel, error) {
	k := &Kernel{saved: &savedSysctls{path: saved}}
	err := k.open()
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("opening netlink: %w", permission(err))
	}
	return k, nil
}

func (k *Kernel) open() (err error) {
	if k.h, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	if k.strict, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	// Linux before 4.20 has no strict checking: it dumps everything, and the
	// library filters.
	if err = k.strict.SetStrictCheck(true); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return err
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	k.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	k.events, err = watch()
	return err
}

// Close ends the events and frees the sockets.
func (k *Kernel) Close() error {
	var err error
	if k.events != nil {
		err = k.events.close()
	}
	for _, h := range []*netlink.Handle{k.h, k.strict} {
		if h != nil {
			h.Close()
		}
	}
	for _, s := range k.sockets {
		s.Close()
	}
	return err
}

// Events implements routing.Kernel.
func (k *Kernel) Events() <-chan struct{} { return k.events.ch }

// permission says what is missing where err is about that.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("need CAP_NET_ADMIN: %w", err)
	}
	return err
}

// dumpTries is how often a dump is tried that the kernel says was interrupted
// by a change.
const dumpTries = 5

// dump calls f until its answer is consistent. After dumpTries the last answer
// is taken: what changed meanwhile also sent an event.
func dump[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := f()
		if err == nil || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
		if try == dumpTries {
			return v, ctx.Err()
		}
	}
}
