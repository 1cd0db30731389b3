package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// The network behind the far end's host.
var (
	OfficeV4 = netip.MustParseAddr("10.20.0.20")
	OfficeV6 = netip.MustParseAddr("fd20::20")
)

// OfficeLink is the far end's link to that network.
const OfficeLink = "office0"

// AddOffice gives the far end's host a network with one host in it, which serves
// InboundPort, and takes its WireGuard device away: somebody makes another.
func (w *World) AddOffice(ctx context.Context) (*Namespace, error) {
	if err := w.FarEnd.closeDevice(); err != nil {
		return nil, err
	}
	n, err := newNamespace("office", Google.String(), false)
	if err != nil {
		return nil, err
	}
	w.onClose(n.close)
	in := netip.PrefixFrom
	v4, v6 := netip.MustParseAddr("10.20.0.1"), netip.MustParseAddr("fd20::1")
	if err := cable(end{n, "eth0", []netip.Prefix{in(OfficeV4, 24), in(OfficeV6, 64)}},
		end{w.FarEnd.Namespace, OfficeLink, []netip.Prefix{in(v4, 24), in(v6, 64)}}); err != nil {
		return nil, err
	}
	if err := n.defaults(v4, v6); err != nil {
		return nil, err
	}
	s := newServers()
	w.onClose(s.close)
	if err := s.serve(n, InboundPort); err != nil {
		return nil, fmt.Errorf("starting the server of the %s: %w", n.Name, err)
	}
	return n, errors.Join(n.settle(ctx), w.FarEnd.settle(ctx))
}

// StartOn is Gateway.Start on another host. The process ends with the world.
func (w *World) StartOn(ctx context.Context, n *Namespace, exe string, args ...string) (*Process, error) {
	dir, err := os.MkdirTemp(w.Dir, "notify-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "socket")
	p, err := startProcess(n, socket, w.Gateway.report, []string{"NOTIFY_SOCKET=" + socket}, exe, args...)
	if err != nil {
		return nil, fmt.Errorf("starting %s on the %s: %w", exe, n.Name, err)
	}
	w.onClose(p.Kill)
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	return p, nil
}
