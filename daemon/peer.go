package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sys/unix"

	"smartdns/nft"
	"smartdns/routing/wg"
)

// PeerOptions says how this host is the far end of its clients.
type PeerOptions struct {
	LAN   []string     // the interfaces whose networks and the clients may reach each other
	SNAT  []netip.Addr // what the clients' packets leave with; a family without one is masqueraded
	Hooks bool         // the commands of the file are run
	// Links stands for the kernel's, for tests; nil is the kernel.
	Links wg.Links
}

// newPeer is what a word and p ask for, whatever is up now.
func newPeer(o Options, word string, p PeerOptions) (peerState, error) {
	path, name, err := quickFile(word)
	if err != nil {
		return peerState{}, err
	}
	at := peerState{Name: string(name), File: path}
	was, up := readPeer(o, at.Name)
	if up && was.File != path {
		return peerState{}, fmt.Errorf("far end %s is up already, with %s: take it down first", name, was.File)
	}
	if up {
		at = was
	}
	at.LAN, at.SNAT, at.Hooks = p.LAN, p.SNAT, p.Hooks
	return at, nil
}

// PeerUp makes this host the exit of the clients of a wg-quick file, with the
// kernel's WireGuard, and leaves it so. What is up already is brought to what the
// file says now. Its error matches errors.ErrUnsupported where the kernel has no
// WireGuard. What it began it takes back when it fails.
func PeerUp(ctx context.Context, o Options, word string, p PeerOptions) error {
	at, err := newPeer(o, word, p)
	if err != nil {
		return err
	}
	if pid, runs := holder(peerInstanceName + at.Name); runs {
		return fmt.Errorf("far end %s is run by process %d: smartdns peer down %s first", at.Name, pid, at.Name)
	}
	release, err := lockPeers(o)
	if err != nil {
		return err
	}
	defer release()
	f, err := openFarEnd(o, at, p.Links)
	if err != nil {
		return err
	}
	defer f.close()
	_, wasUp := readPeer(o, at.Name)
	err = f.apply(ctx, wg.Kernel)
	if err == nil {
		return nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = fmt.Errorf("this kernel has no WireGuard, and a device of ours would end with this command: use smartdns peer run %s (%w)", word, err)
	}
	if wasUp && f.raised {
		return err // it was, and still is, as well as it can be
	}
	_, back := f.takeBack(context.WithoutCancel(ctx))
	return errors.Join(err, back)
}

// PeerRun is PeerUp with the kernel's WireGuard or, where there is none, a device
// of this process. It keeps all of it as the file says until ctx ends, and then
// takes it back. SIGHUP reads the file again.
func PeerRun(ctx context.Context, o Options, word string, p PeerOptions) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	at, err := newPeer(o, word, p)
	if err != nil {
		return err
	}
	claimed, err := listenName(peerInstanceName + at.Name)
	if errors.Is(err, unix.EADDRINUSE) {
		pid, _ := holder(peerInstanceName + at.Name)
		return fmt.Errorf("far end %s is run already, by process %d", at.Name, pid)
	}
	if err != nil {
		return fmt.Errorf("claiming far end %s: %w", at.Name, err)
	}
	defer claimed.Close()
	f, err := openFarEnd(o, at, p.Links)
	if err != nil {
		return err
	}
	defer f.close()
	f.runs = true
	err = f.locked(func() error { return f.apply(ctx, wg.Auto) })
	if err == nil {
		err = f.follow(ctx, hup)
	}
	return errors.Join(err, f.locked(func() error {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, err := f.takeBack(stop)
		return err
	}))
}

// locked calls do with the far ends locked.
func (f *farEnd) locked(do func() error) error {
	release, err := lockPeers(f.opts)
	if err != nil {
		return err
	}
	defer release()
	return do()
}

// How follow paces itself.
const (
	peerDebounce = 200 * time.Millisecond // whatever comes together is one event
	peerLook     = 30 * time.Second       // without any: sysctls and proxies have none
)

// follow keeps the far end as its file says until ctx ends.
func (f *farEnd) follow(ctx context.Context, hup <-chan os.Signal) error {
	changed := make(chan struct{}, 1)
	stop, err := f.table.Follow(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	notifyManager(f.opts.Log, sdnotify.Ready)
	defer notifyManager(f.opts.Log, sdnotify.Stopping)
	f.opts.Log.Info("ready: this host is the far end of "+f.at.Name, "device", string(f.device.Kind()))
	said := ""
	for {
		reload := false
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			reload = true
			notifyManager(f.opts.Log, sdnotify.Reloading, monotonic())
		case <-f.kernel.Events():
		case <-changed:
		case <-f.device.Done():
		case <-time.After(peerLook):
		}
		err := f.locked(func() error { return f.apply(ctx, wg.Auto) })
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && said != "":
			f.opts.Log.Info("works again")
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			f.opts.Log.Error(said)
		}
		if reload {
			notifyManager(f.opts.Log, sdnotify.Ready)
		}
		select {
		case <-ctx.Done():
		case <-time.After(peerDebounce):
		}
	}
}

// PeerDown takes back what PeerUp made, or ends the process that PeerRun is, and
// waits for that: then stopped is its pid. The word is a far end's name or file;
// "" the only one that is up. Steps are what it did; it is no error if there was
// nothing to do.
func PeerDown(ctx context.Context, o Options, word string, links wg.Links) (steps []string, stopped int, err error) {
	at, err := peerWord(o, word)
	if err != nil {
		return nil, 0, err
	}
	if pid, runs := holder(peerInstanceName + at.Name); runs {
		if pid == 0 {
			return nil, 0, fmt.Errorf("far end %s is run by a process that cannot be seen from here: stop it where it runs", at.Name)
		}
		if stopped, err = stopHolder(ctx, peerInstanceName+at.Name, pid); err != nil {
			return nil, 0, err
		}
	}
	release, err := lockPeers(o)
	if err != nil {
		return nil, stopped, err
	}
	defer release()
	steps, err = peerDown(ctx, o, at.Name, links)
	return steps, stopped, err
}

// peerDown removes what is left of a far end that no process runs.
func peerDown(ctx context.Context, o Options, name string, links wg.Links) ([]string, error) {
	at, ok := readPeer(o, name)
	if !ok {
		at = peerState{Name: name}
	}
	f, err := openFarEnd(o, at, links)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if ok {
		return f.takeBack(ctx)
	}
	gone, err := f.table.Delete(ctx) // of before somebody emptied the run directory
	f.say(gone)
	var done []string
	for _, s := range gone {
		done = append(done, s.String())
	}
	return done, err
}

// cleanPeers removes the far ends of this host. It refuses while a process runs
// one.
func cleanPeers(ctx context.Context, o Options) ([]string, error) {
	names := map[string]bool{}
	for _, s := range peersUp(o) {
		names[s.Name] = true
	}
	tables, err := nft.PeerTables()
	if err != nil {
		return nil, err
	}
	for _, name := range tables {
		names[name] = true
	}
	if len(names) == 0 {
		return nil, nil
	}
	release, err := lockPeers(o)
	if err != nil {
		return nil, err
	}
	defer release()
	var done []string
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if pid, runs := holder(peerInstanceName + name); runs {
			errs = append(errs, fmt.Errorf("far end %s is run by process %d: smartdns peer down %s first", name, pid, name))
			continue
		}
		steps, err := peerDown(ctx, o, name, nil)
		done, errs = append(done, steps...), append(errs, err)
	}
	return done, errors.Join(errs...)
}
