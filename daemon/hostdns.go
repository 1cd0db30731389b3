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

// hostDNS is this host's resolver, told servers in the place of those of link;
// changed, unless nil, is told that others changed that.
func hostDNS(o Options, servers []netip.Addr, link string, changed func()) *hostdns.Host {
	h := hostdns.Options{
		Path: resolvConf, Saved: filepath.Join(o.Dirs.State, savedResolvConf), Bus: systemBus(),
		Servers: servers, Link: link, Logger: o.Log,
	}
	if changed != nil {
		h.Changed = func(error) { changed() }
	}
	return hostdns.New(h)
}

// systemBus is where the programs are that say whom this host asks.
func systemBus() string {
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		return a
	}
	return hostdns.SystemBus
}

// restoreHostDNS makes this host ask whom it asked before us, and returns the
// commands that do the same.
func restoreHostDNS(o Options) ([]string, error) {
	h := hostDNS(o, nil, "", nil)
	before, _ := os.ReadFile(resolvConf) // not there is a content too
	done := h.Kept()
	saved := filepath.Join(o.Dirs.State, savedResolvConf)
	_, none := os.Lstat(saved)
	err := h.Restore()
	if len(h.Kept()) > 0 {
		done = nil
	}
	if after, _ := os.ReadFile(resolvConf); none == nil && !bytes.Equal(before, after) {
		done = append(done, "mv "+saved+" "+resolvConf)
	}
	return done, err
}

// hostResolver is whom this host asks. Only the loop uses it.
type hostResolver struct {
	opts    Options
	wake    func()
	host    *hostdns.Host // nil: not ours
	servers []netip.Addr  // that it names
	link    hostLink      // whose servers they take the place of
	again   bool          // somebody asked for another try
	stop    func()        // ends the watch of it, and waits
	clean   bool          // nothing of a killed run is left
}

// hostLink is the link whose servers systemd-resolved takes us for. It is
// another one when it was made anew.
type hostLink struct {
	name  string
	index int
}

// hostView says whether this host asks us at ours, and which program says so, ""
// where that is us or nobody.
func hostView(ctx context.Context, ours []netip.Addr) (asks bool, by string) {
	v := hostdns.Look(ctx, resolvConf, systemBus(), ours...)
	if v.By == hostdns.ByUs {
		v.By = ""
	}
	return v.Asks, v.By
}

// hostLink is the first tunnel, whose addresses and routes are ours, or else an
// uplink.
func (e *engine) hostLink(l live) hostLink {
	for _, t := range e.parts.Tunnels {
		if i := l.links[t.Path].index; i > 0 {
			return hostLink{string(t.Path), i}
		}
	}
	for _, up := range l.facts.Uplinks() {
		return hostLink{name: up}
	}
	return hostLink{}
}

// follow makes this host ask us where we listen, as soon as there is somebody to
// ask, or gives back what it asked before when the config does not say so.
func (h *hostResolver) follow(want bool, listen []netip.AddrPort, link hostLink) error {
	if !want {
		return h.restore()
	}
	var servers []netip.Addr
	for _, a := range listen {
		if a.Port() == dnsPort && (a.Addr().IsLoopback() || a.Addr().IsUnspecified()) {
			servers = append(servers, onLoopback(a.Addr()))
		}
	}
	switch {
	case len(servers) == 0:
		return errNotOnLoopback
	case h.host != nil && slices.Equal(h.servers, servers) && h.link == link:
		err := h.host.Err()
		if err == nil || errors.Is(err, hostdns.ErrContested) && !h.again {
			return err
		}
		h.again = false
		return h.host.Set()
	}
	h.unwatch()
	f := hostDNS(h.opts, servers, link.name, h.wake)
	h.clean = false
	if err := f.Set(); err != nil {
		return err
	}
	h.host, h.servers, h.link, h.again = f, servers, link, false
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	h.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil && ctx.Err() == nil {
			h.opts.Log.Warn("whom this host asks is not watched", "err", err)
		}
	}()
	return nil
}

// onLoopback is a listener's address as this host asks it.
func onLoopback(a netip.Addr) netip.Addr {
	switch {
	case !a.IsUnspecified():
		return a
	case a.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// restore gives back what this host asked before, also what a killed run left.
func (h *hostResolver) restore() error {
	if h.clean {
		return nil
	}
	h.unwatch()
	f := h.host
	if f == nil {
		f = hostDNS(h.opts, nil, "", nil)
	}
	if err := f.Restore(); err != nil {
		return err
	}
	h.host, h.clean = nil, true
	return nil
}

func (h *hostResolver) unwatch() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}
