package daemon

import (
	"context"
	"time"

	"smartdns/routing/wg"
)

// shownTunnel is what others than the loop see of a tunnel. Its monitor is nil
// while the tunnel could not be opened.
type shownTunnel struct {
	part    Tunnel
	monitor *wg.Monitor
	wait    time.Duration // until it is used again, while it is up and another stands in
}

func (t shownTunnel) status() wg.Status {
	if t.monitor == nil {
		return wg.Status{Name: string(t.part.Path), State: wg.Down}
	}
	return t.monitor.Status()
}

func (e *engine) shownTunnels() []shownTunnel {
	var all []shownTunnel
	for _, part := range e.parts.Tunnels {
		s := shownTunnel{part: part}
		if t := e.tunnels[part.Path]; t != nil {
			s.monitor, s.wait = t.monitor, t.back.left(time.Now())
		}
		all = append(all, s)
	}
	return all
}

// syncTunnels opens, changes and closes devices as the file says, and brings
// back those that somebody else changed or removed.
func (e *engine) syncTunnels(ctx context.Context) {
	drifted := e.drifted.Swap(false)
	for p, t := range e.tunnels {
		if !contains(paths(e.parts), p) {
			e.note(ctx, tunnelFailure(string(p)), nil)
			delete(e.tunnels, p)
			if err := e.closeTunnel(t); err != nil {
				e.log.Error(err.Error())
			}
		}
	}
	for _, part := range e.parts.Tunnels {
		e.note(ctx, tunnelFailure(string(part.Path)), e.syncTunnel(ctx, part, drifted))
	}
}

func tunnelFailure(path string) string { return "tunnel " + path }

func (e *engine) syncTunnel(ctx context.Context, part Tunnel, drifted bool) error {
	t := e.tunnels[part.Path]
	if t != nil && t.part.Device != part.Device {
		delete(e.tunnels, part.Path)
		if err := e.closeTunnel(t); err != nil {
			return err
		}
		t = nil
	}
	if t == nil {
		t, err := e.openTunnel(ctx, part)
		if err != nil {
			return err
		}
		e.tunnels[part.Path] = t
		e.monitorTunnel(t)
		return nil
	}
	e.watchLink(t)
	changed := !t.part.WG.Same(part.WG)
	_, failed := e.failures[tunnelFailure(string(part.Path))]
	if changed || drifted || failed || t.index == 0 {
		steps, err := t.device.Set(ctx, part.WG)
		e.logSteps(steps)
		if err != nil {
			return err
		}
		e.watchLink(t)
	}
	if err := e.thinTable(ctx, t, part); err != nil {
		return err
	}
	t.part = part
	if changed {
		t.unwatch()
		e.monitorTunnel(t)
	}
	return nil
}
