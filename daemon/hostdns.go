package daemon

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"smartdns/routing/hostdns"
)

// resolvConf is the file that says whom this host asks.
const resolvConf = "/etc/resolv.conf"

// savedResolvConf keeps, in the state directory, the file from before us.
const savedResolvConf = "resolv.conf.before"

var errNotOnLoopback = errors.New(`[listen] system = true: no listener is on port 53 of a loopback address; add dns = ["127.0.0.1:53"]`)

func hostFile(o Options, servers []netip.Addr) *hostdns.File {
	return hostdns.New(hostdns.Options{
		Path: resolvConf, Saved: filepath.Join(o.Dirs.State, savedResolvConf), Servers: servers, Logger: o.Log,
	})
}

// setHostDNS makes this host ask us as soon as there is somebody to ask, or
// gives back its file when the config no longer says so.
func (e *engine) setHostDNS() error {
	switch want := e.parts.Config.Listen.System; {
	case !want && e.hostDNS == nil:
		return nil
	case !want:
		e.stopHostDNS()
		err := e.hostDNS.Restore()
		e.hostDNS = nil
		return err
	case e.hostDNS != nil:
		return e.hostDNS.Err()
	}
	var servers []netip.Addr
	for _, a := range e.server.Addrs() {
		if a.Port() == dnsPort && (a.Addr().IsLoopback() || a.Addr().IsUnspecified()) {
			servers = append(servers, a.Addr())
		}
	}
	if len(servers) == 0 {
		return errNotOnLoopback
	}
	f := hostFile(e.opts, servers)
	if err := f.Set(); err != nil {
		return err
	}
	e.hostDNS = f
	ctx, cancel := context.WithCancel(e.ctx)
	e.stopHostDNS = cancel
	go func() { _ = f.Run(ctx) }() // what it cannot do is in f.Err
	return nil
}
