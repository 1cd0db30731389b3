package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/routing/wg"
)

// Down takes back what Up made, or tells a daemon to stop and waits until it
// has: then stopped is its pid. It is the one way to open a kill switch that is
// closed. Steps are what it did.
func Down(ctx context.Context, o Options) (steps []string, stopped int, err error) {
	release, err := claimAll(o)
	if errors.Is(err, errRunning) {
		if stopped, err = stopDaemon(ctx); err != nil || !Closed(ctx, o) {
			return nil, stopped, err
		}
		// It has left the kill switch closed.
		release, err = claimAll(o)
	}
	if err != nil {
		return nil, stopped, err
	}
	defer release()
	tunnels, err := upTunnels(o)
	if err != nil {
		// What is in the kernel does not stay for a file that cannot be read.
		o.Log.Warn("no command of a tunnel's file is run, nor is it saved: " + err.Error())
	}
	var errs []error
	for _, t := range tunnels {
		errs = append(errs, t.hooks(ctx, wg.PreDown, o.Log))
		if t.WG.Quick.SaveConfig {
			errs = append(errs, saveUp(ctx, o, t))
		}
	}
	steps, err = clean(ctx, o)
	errs = append(errs, err)
	for _, t := range tunnels {
		errs = append(errs, t.hooks(ctx, wg.PostDown, o.Log))
	}
	return steps, stopped, errors.Join(errs...)
}

func saveUp(ctx context.Context, o Options, t Tunnel) error {
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return err
	}
	defer k.Close()
	_, facts, err := k.Observe(ctx, nil)
	if err != nil {
		return err
	}
	return t.save(facts, o.Log)
}

// stopDaemon ends the process that holds this network namespace, and waits
// until it has given that up.
func stopDaemon(ctx context.Context) (int, error) {
	pid := claimant()
	if pid == 0 {
		return 0, fmt.Errorf("%w in this network namespace, and cannot be seen from here: stop it where it runs", errRunning)
	}
	return stopHolder(ctx, instanceName, pid)
}

// stopHolder ends the process that holds an abstract name, and waits until it
// has ended; 0 where the name has another holder by now.
func stopHolder(ctx context.Context, name string, pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(fd)
	if now, _ := holder(name); now != pid { // another process may have the number by now
		return 0, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return 0, fmt.Errorf("stopping process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*stopTime)
	defer cancel()
	for {
		const look = 100 // ms, at most: ctx may end
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, look)
		switch {
		case n > 0:
			return pid, nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return 0, fmt.Errorf("waiting for process %d: %w", pid, err)
		case ctx.Err() != nil:
			return 0, fmt.Errorf("process %d was told to stop, and has not yet: %w", pid, ctx.Err())
		}
	}
}

// upTunnels returns the tunnels that Up made, by what it left; none where it has
// not run.
func upTunnels(o Options) ([]Tunnel, error) {
	r, ok := readRaised(o)
	if !ok {
		return nil, nil
	}
	var parts *Parts
	var err error
	if r.Quick != "" {
		parts, err = quickParts(r.Quick, r.Hooks)
	} else {
		o.Config = r.Config
		parts, err = Load(o)
	}
	if err != nil {
		return nil, err
	}
	return parts.Tunnels, nil
}

// Save writes the running configuration of a tunnel into its wg-quick file,
// and returns that. The word is a tunnel of the configuration, or what Up takes;
// "" is the only tunnel of the configuration.
func Save(ctx context.Context, o Options, word string) (path string, err error) {
	path, name, err := tunnelFile(o, word)
	if err != nil {
		return "", err
	}
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return "", err
	}
	defer k.Close()
	_, facts, err := k.Observe(ctx, nil)
	if err != nil {
		return "", err
	}
	if _, _, err := k.LinkIndex(string(name)); err != nil {
		return "", fmt.Errorf("tunnel %s is not up, so there is nothing to save: %w", name, err)
	}
	return path, wg.Save(path, string(name), shownLink(facts, string(name)))
}

// Strip returns what `wg setconf` takes of a wg-quick file, byte for byte as
// wg-quick prints it, with its secrets. The word is as for Save.
func Strip(o Options, word string) (string, error) {
	path, _, err := tunnelFile(o, word)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the tunnel's file: %w", err)
	}
	return wg.Strip(string(text)), nil
}

// tunnelFile finds the wg-quick file and the interface that a word means.
func tunnelFile(o Options, word string) (string, routing.Path, error) {
	c, err := LoadConfig(o.Config)
	if err == nil {
		for _, t := range c.Tunnels {
			if string(t.Path) == word || word == "" && len(c.Tunnels) == 1 {
				return t.Config, t.Path, nil
			}
		}
	}
	if word != "" {
		return quickFile(word)
	}
	return "", "", errors.Join(err, errors.New("which tunnel? write its name or its wg-quick file"))
}
