package wg

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// The moments of hooks, as wg-quick(8) calls them.
const (
	PreUp    = "PreUp"    // before the device is made
	PostUp   = "PostUp"   // after everything is there
	PreDown  = "PreDown"  // before anything is taken back
	PostDown = "PostDown" // after the device is gone
)

// hookTime is how long one command may take. wg-quick waits for ever, and a
// daemon must not.
const hookTime = 30 * time.Second

// RunHooks runs the commands of one moment, in the order of the file, with %i
// replaced by name. They are bash's where there is bash, as wg-quick's are, else
// sh's. The first that fails ends it; its error names its line, not its text,
// which may hold a key.
func (c *Config) RunHooks(ctx context.Context, moment, name string, log *slog.Logger) error {
	shell, err := exec.LookPath("bash")
	if err != nil {
		shell = "/bin/sh"
	}
	for _, h := range c.Quick.Hooks {
		if h.Key != moment {
			continue
		}
		command := strings.ReplaceAll(string(h.Command), "%i", name)
		log.Debug("[#] " + redact(command))
		if err := runHook(ctx, shell, command, log.With("hook", moment)); err != nil {
			return fmt.Errorf("%s:%d: running %s: %w", c.File, h.Line, moment, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, shell, command string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell, "-c", command)
	// What the shell started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for a program in the background that keeps our pipe
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		log.Info(redact(strings.TrimRight(line, "\n")))
	}
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("it took more than %s", hookTime)
	case err != nil && strings.Contains(err.Error(), exec.ErrWaitDelay.Error()):
		return nil
	case err != nil:
		return fmt.Errorf("%w", err)
	}
	return nil
}
