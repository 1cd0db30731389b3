package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"smartdns/routing"
	"smartdns/routing/wg"
)

// hooks runs the commands of one moment, where the file allows them.
func (t Tunnel) hooks(ctx context.Context, moment string, log *slog.Logger) error {
	if !t.Hooks {
		return nil
	}
	if err := t.WG.RunHooks(ctx, moment, string(t.Path), log.With("tunnel", string(t.Path))); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.Path, err)
	}
	return nil
}

// raise fills the tables that files name, and runs PostUp of the tunnels that
// have just come to be there. One that
// fails is told until the tunnel is another.
func (e *engine) raise(ctx context.Context) error {
	var errs []error
	for _, t := range e.tunnels {
		errs = append(errs, e.fillTable(ctx, t))
		if !t.raised && t.index != 0 {
			t.hookErr = t.part.hooks(ctx, wg.PostUp, e.log)
			t.raised = true
		}
		errs = append(errs, t.hookErr)
	}
	return errors.Join(errs...)
}

// closeTunnel takes a tunnel back as wg-quick does: PreDown, the saving of its
// file where that asks for it, the device, PostDown. What a command or the file
// refuses holds nothing up: it is in the error.
func (e *engine) closeTunnel(t *running) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), time.Minute)
	defer cancel()
	var errs []error
	whole := t.raised && t.hookErr == nil
	if whole {
		errs = append(errs, t.part.hooks(ctx, wg.PreDown, e.log))
		if err := e.saveTunnel(t); err != nil {
			e.log.Error(err.Error()) // /etc may be read-only for us, which is no reason to fail a stop
		}
	}
	errs = append(errs, t.close())
	if whole {
		errs = append(errs, t.part.hooks(ctx, wg.PostDown, e.log))
	}
	return errors.Join(errs...)
}

// saveTunnel writes the file of a tunnel with SaveConfig = true.
func (e *engine) saveTunnel(t *running) error {
	if !t.part.WG.Quick.SaveConfig || t.index == 0 {
		return nil
	}
	return t.part.save(e.routes.Status().Facts, e.log)
}

// save writes what runs into the tunnel's file, unless somebody has changed that
// since it was read.
func (t Tunnel) save(f routing.Facts, log *slog.Logger) error {
	now, err := wg.ParseFile(readable(t.Config))
	if err != nil {
		return fmt.Errorf("tunnel %s: saving its file: %w", t.Path, err)
	}
	if !now.Same(t.WG) {
		log.Warn("the tunnel's file was changed while it ran: it is not written over", "tunnel", string(t.Path), "file", t.Config)
		return nil
	}
	log.Debug("[#] wg-quick save " + t.Config)
	return wg.Save(t.Config, string(t.Path), shownLink(f, string(t.Path)))
}

// shownLink is what the kernel shows of the link called name, without the
// addresses that it gives by itself.
func shownLink(f routing.Facts, name string) wg.Running {
	var r wg.Running
	for _, l := range f.Links {
		if l.Name != name {
			continue
		}
		r.MTU = l.MTU
		for _, a := range l.Addrs {
			if !a.Addr().IsLinkLocalUnicast() {
				r.Addresses = append(r.Addresses, a)
			}
		}
	}
	return r
}
