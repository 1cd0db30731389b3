package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

const (
	// trialTime is for the new program to start and to read the configuration
	// and its lists, on a small router too.
	trialTime = time.Minute
	// lastAnswers is for the answers that are being made when the others begin
	// to wait. Who gets none asks again.
	lastAnswers = 200 * time.Millisecond
	maxSaid     = 16 << 10 // bytes of what a program on trial says
)

// place is where this process runs, which another program can take over with
// the same number, arguments and environment.
type place struct {
	program string       // the file to run
	had     *inherited   // from who was here before; nil: nobody
	held    []held       // beside the sockets of queries
	asked   chan restart // by the loop
	hup     chan os.Signal
}

// held is something open that outlives the program.
type held = syscall.Conn

// restart asks the loop to have the program replaced. Nobody hears of one that
// worked.
type restart struct{ failed chan error }

// ownProgram returns the file to run in our place: where we were started from,
// so that a symbolic link there may lead elsewhere by then.
func ownProgram() (string, error) {
	const self = "/proc/self/exe"
	if strings.ContainsRune(os.Args[0], '/') {
		at, err := filepath.Abs(os.Args[0])
		is, e1 := os.Stat(self)
		there, e2 := os.Stat(at)
		if errors.Join(err, e1, e2) == nil && os.SameFile(is, there) {
			return at, nil
		}
	}
	at, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding our own program: %w", err)
	}
	return at, nil
}

// requestRestart has the program on disk take our place. It returns only when
// that cannot be; then nothing has changed.
func (e *engine) requestRestart(ctx context.Context) error {
	e.data.reloading.Lock()
	defer e.data.reloading.Unlock()
	if err := e.tryProgram(ctx); err != nil {
		return err
	}
	// A file that only the new program understands is for that to judge.
	if parts, err := Load(e.opts); err == nil {
		if err := errors.Join(parts.ownServer(e.shown.Load().live.facts), e.refuseToOpen(ctx, parts)); err != nil {
			return err
		}
	}
	// What comes after this is little, and is lost.
	e.verdicts.save(true)
	e.kept.save()
	r := restart{failed: make(chan error, 1)}
	select {
	case e.place.asked <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryProgram runs the program that would take our place, to see that it starts
// and takes the configuration.
func (e *engine) tryProgram(ctx context.Context) error {
	args := []string{os.Args[0], "check", "--run-dir", e.opts.Dirs.Run, "--state-dir", e.opts.Dirs.State}
	if e.opts.Config != "" {
		args = append(args, "--config", e.opts.Config)
	}
	said, err := runTrial(ctx, e.place.program, args)
	if err == nil {
		return nil
	}
	if said = strings.TrimSpace(said); said != "" {
		return fmt.Errorf("trying %s: %w:\n%s", e.place.program, err, said)
	}
	return fmt.Errorf("trying %s: %w", e.place.program, err)
}

// runTrial runs a program to its end and returns what it has said to stderr.
func runTrial(ctx context.Context, program string, args []string) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := os.StartProcess(program, args, &os.ProcAttr{Files: []*os.File{null, null, w}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	w.Close()
	if err != nil {
		return "", err
	}
	// Where memory is short, we are not who has to go.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.Pid), []byte("1000"), 0)
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Kill(-p.Pid, unix.SIGKILL)
		_ = r.SetReadDeadline(time.Now()) // whoever else holds the other end
	})
	defer stop()
	var text bytes.Buffer
	_, _ = io.Copy(&text, io.LimitReader(r, maxSaid))
	_, _ = io.Copy(io.Discard, r)
	end, err := p.Wait()
	switch {
	case ctx.Err() != nil:
		return text.String(), fmt.Errorf("it has not ended: %w", context.Cause(ctx))
	case err != nil:
		return text.String(), err
	case !end.Success():
		return text.String(), errors.New(end.String())
	}
	return text.String(), nil
}

// replace runs the program in our place. It is the loop's, and returns only when
// that did not work; then all goes on as before. Who was told to stop does.
func (e *engine) replace(ctx context.Context) error {
	e.notify(sdnotify.Reloading, monotonic()) // until READY=1, from whomever
	paused := sinceBoot()
	e.server.Pause(lastAnswers)
	// Until the new program listens for it, it would end that.
	signal.Ignore(syscall.SIGHUP)
	err := ctx.Err()
	if err == nil {
		err = e.handOver(paused)
	}
	signal.Notify(e.place.hup, syscall.SIGHUP)
	e.server.Resume()
	e.notify(sdnotify.Ready)
	return fmt.Errorf("replacing the program by %s: %w", e.place.program, err)
}

// handOver leaves what must stay open to the program, and runs it.
func (e *engine) handOver(paused time.Duration) error {
	all := append(e.server.Sockets(), e.place.held...)
	w := will{PID: os.Getpid(), Raised: []routing.Path{}, Paused: int64(paused)}
	for path, t := range e.tunnels {
		if t.part.Hooks && t.raised && t.hookErr == nil {
			w.Raised = append(w.Raised, path)
		}
		if tun := t.device.TUN(); tun != nil {
			all = append(all, tun)
		}
	}
	// Nothing else is started meanwhile, which would keep them open for ever.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	defer func() {
		for _, fd := range w.FDs {
			unix.CloseOnExec(fd)
		}
	}()
	for _, c := range all {
		fd, err := keepOpen(c)
		if err != nil {
			return err
		}
		w.FDs = append(w.FDs, fd)
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve", unix.Exec(e.place.program, os.Args, append(os.Environ(), handoverEnv+"="+string(text))))
}

// keepOpen has exec leave c open, and returns its number.
func keepOpen(c held) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("handing over a descriptor: %w", err)
	}
	var number int
	var errno error
	err = raw.Control(func(fd uintptr) {
		number = int(fd)
		_, errno = unix.FcntlInt(fd, unix.F_SETFD, 0)
	})
	if err := errors.Join(err, errno); err != nil {
		return 0, fmt.Errorf("handing over a descriptor: %w", err)
	}
	return number, nil
}

// sinceBoot is the clock that goes on over exec.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return time.Duration(t.Nano())
}

// tookOver tells that queries are answered again.
func (e *engine) tookOver() {
	for _, s := range e.server.CloseUnwanted() {
		e.log.Info("a socket that was open is not listened on any more", "socket", s.String())
	}
	if had := e.place.had; had != nil && had.paused != 0 {
		e.log.Info("this program took the place of another", "queries waited", (sinceBoot() - had.paused).Round(time.Millisecond))
	}
}
