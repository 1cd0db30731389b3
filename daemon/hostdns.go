package daemon

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"smartdns/routing/hostdns"
)

// resolvConf is the file that says whom this host asks.
const resolvConf = "/etc/resolv.conf"

// savedResolvConf keeps, in the state directory, the file from before us.
const savedResolvConf = "resolv.conf.before"

var errNotOnLoopback = errors.New(`[listen] system = true: no listener is on port 53 of a loopback address; add dns = ["127.0.0.1:53"]`)

// hostFile is resolv.conf naming servers; changed, unless nil, is told that
// others rewrote it.
func hostFile(o Options, servers []netip.Addr, changed func()) *hostdns.File {
	h := hostdns.Options{Path: resolvConf, Saved: filepath.Join(o.Dirs.State, savedResolvConf), Servers: servers, Logger: o.Log}
	if changed != nil {
		h.Changed = func(error) { changed() }
	}
	return hostdns.New(h)
}

// restoreHostFile puts the former file back, and returns the command that did
// the same.
func restoreHostFile(o Options) ([]string, error) {
	before, _ := os.ReadFile(resolvConf) // not there is a content too
	err := hostFile(o, nil, nil).Restore()
	after, _ := os.ReadFile(resolvConf)
	if bytes.Equal(before, after) {
		return nil, err
	}
	return []string{"mv " + filepath.Join(o.Dirs.State, savedResolvConf) + " " + resolvConf}, err
}

// hostResolver is this host's resolv.conf. Only the loop uses it.
type hostResolver struct {
	opts    Options
	wake    func()
	file    *hostdns.File // nil: not ours
	servers []netip.Addr  // that it names
	stop    func()        // ends the watch of it, and waits
	clean   bool          // nothing of a killed run is left
}

// follow makes this host ask us where we listen, as soon as there is somebody to
// ask, or gives back its file when the config does not say so.
func (h *hostResolver) follow(want bool, listen []netip.AddrPort) error {
	if !want {
		return h.restore()
	}
	var servers []netip.Addr
	for _, a := range listen {
		if a.Port() == dnsPort && (a.Addr().IsLoopback() || a.Addr().IsUnspecified()) {
			servers = append(servers, a.Addr())
		}
	}
	switch {
	case len(servers) == 0:
		return errNotOnLoopback
	case h.file != nil && slices.Equal(h.servers, servers):
		return h.file.Err()
	}
	h.unwatch()
	f := hostFile(h.opts, servers, h.wake)
	if err := f.Set(); err != nil {
		return err
	}
	h.file, h.servers, h.clean = f, servers, false
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	h.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil && ctx.Err() == nil {
			h.opts.Log.Warn("resolv.conf is not watched", "err", err)
		}
	}()
	return nil
}

// restore puts the former file back, also one that a killed run left replaced.
func (h *hostResolver) restore() error {
	if h.clean {
		return nil
	}
	h.unwatch()
	f := h.file
	if f == nil {
		f = hostFile(h.opts, nil, nil)
	}
	if err := f.Restore(); err != nil {
		return err
	}
	h.file, h.clean = nil, true
	return nil
}

func (h *hostResolver) unwatch() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}
