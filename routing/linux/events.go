package linux

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher turns the kernel's notifications into events.
type watcher struct {
	f  *os.File // a netlink socket
	ch chan struct{}
	wg sync.WaitGroup
}

// groups are what routing depends on. A change of forwarding or rp_filter is a
// NETCONF message.
const groups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1) |
	1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)

func watch() (*watcher, error) {
	w, err := subscribe()
	if err == nil {
		w.wg.Go(w.run)
	}
	return w, err
}

func subscribe() (*watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &watcher{f: os.NewFile(uintptr(fd), "rtnetlink events"), ch: make(chan struct{}, 1)}, nil
}

// run sends one event for any number of messages. What they say does not
// matter: the kernel is asked anyway, and a full buffer has lost some of them.
func (w *watcher) run() {
	defer close(w.ch)
	// MSG_TRUNC in the answer is no error: nobody reads the rest.
	buf := make([]byte, 16)
	for {
		_, err := w.f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed
		}
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) close() error {
	err := w.f.Close()
	w.wg.Wait()
	return err
}
