package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs on a host of the lab. It dies with this
// process. Its methods may be called concurrently.
type Process struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	done   chan struct{} // closed when it has ended
	err    error         // how it ended; after done

	mu      sync.Mutex // guards following
	log     bytes.Buffer
	notices []string
	changed chan struct{} // closed and replaced with every notice
}

// startProcess starts a program in a namespace. Its thread of ours waits for
// it: the kernel kills the child when that thread ends.
func startProcess(ns *Namespace, socket string, r Reporter, env []string, exe string, args ...string) (*Process, error) {
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listening for notices: %w", err)
	}
	p := &Process{notify: nc, done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = (*processLog)(p), (*processLog)(p)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	p.cmd.WaitDelay = time.Second // grandchildren may hold the pipes
	started, heard := make(chan error), make(chan struct{})
	go func() {
		running := false
		err := ns.doMounted(func() error {
			if err := p.cmd.Start(); err != nil {
				return err
			}
			running = true
			go func() {
				defer close(heard)
				p.listen()
			}()
			started <- nil
			p.err = p.cmd.Wait()
			return nil
		})
		if !running {
			started <- err
			return
		}
		if p.err != nil {
			r.Logf("process %d ended: %v", p.Pid(), p.err)
		}
		nc.Close()
		<-heard
		close(p.done)
	}()
	if err := <-started; err != nil {
		nc.Close()
		return nil, err
	}
	return p, nil
}

// listen reads notices until the process has ended.
func (p *Process) listen() {
	b := make([]byte, 4096)
	for {
		n, err := p.notify.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		for l := range strings.Lines(string(b[:n])) {
			p.notices = append(p.notices, strings.TrimSuffix(l, "\n"))
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// processLog collects what a process writes.
type processLog Process

func (l *processLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

// Pid returns the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log returns what the process has written to its standard output and error.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Notices returns the lines that the process has sent by sd_notify, in order.
func (p *Process) Notices() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.notices)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode returns the exit code of an ended process, -1 if a signal ended it
// or if it still runs.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Ready waits until the process has said READY=1.
func (p *Process) Ready(ctx context.Context) error { return p.waitNotice(ctx, 0, "READY=1") }

// waitNotice waits for a notice that is not among the first `after`.
func (p *Process) waitNotice(ctx context.Context, after int, notice string) error {
	for {
		p.mu.Lock()
		found := slices.Contains(p.notices[after:], notice)
		changed := p.changed
		p.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("waiting for %s: process %d ended (%w)\n%s", notice, p.Pid(), p.ended(), p.Log())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s of process %d: %w\n%s", notice, p.Pid(), context.Cause(ctx), p.Log())
		}
	}
}

func (p *Process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Reload sends SIGHUP and waits until the process says READY=1 again, as
// systemd's notify-reload protocol has it.
func (p *Process) Reload(ctx context.Context) error {
	n := len(p.Notices())
	if err := p.Signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	return p.waitNotice(ctx, n, "READY=1")
}

// Stop sends SIGTERM and waits for the end. An exit code other than 0 is an
// error, and so is an end that does not come before ctx's: then the process is
// killed.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stopping process %d: %w\n%s", p.Pid(), context.Cause(ctx), p.Log()), p.Kill())
	}
	if p.err != nil {
		return fmt.Errorf("stopping process %d: %w\n%s", p.Pid(), p.err, p.Log())
	}
	return nil
}

// Kill sends SIGKILL and waits for the end. A process that has ended is no
// error.
func (p *Process) Kill() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	// It leads a group of its own: its children go with it.
	if err := unix.Kill(-p.Pid(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", p.Pid(), err)
	}
	<-p.done
	return nil
}

// Exec runs a program in the namespace to its end, and returns its standard
// output. An error holds the standard error. The program is killed when ctx
// ends.
func (n *Namespace) Exec(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := n.doMounted(cmd.Run); err != nil {
		return out.String(), fmt.Errorf("running %s in %s: %w: %s", strings.Join(cmd.Args, " "), n.Name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
