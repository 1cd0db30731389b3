// Command smartdns is a smart DNS resolver with integrated split-tunnel
// routing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"smartdns/web/api"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitYes   = 0
	exitNo    = 1 // no, or failed
	exitUsage = 2
)

// errNo is the error of a command whose answer is no, and was printed.
var errNo = errors.New("no")

// usageError is a command line that we do not understand.
type usageError struct{ error }

// run is the whole program: arguments in, exit code out.
func run(args []string, stdout, stderr io.Writer) int {
	return execute(newRoot(stdout, stderr), args, stdout, stderr)
}

// execute runs a command line of cmd.
func execute(cmd *cobra.Command, args []string, stdout, stderr io.Writer) int {
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	called, err := cmd.ExecuteContextC(context.Background())
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	}
	fmt.Fprintf(stderr, "smartdns: %s\n", safeLines(err.Error()))
	_, usage := errors.AsType[usageError](err)
	_, senseless := errors.AsType[api.BadRequest](err)
	if usage || senseless {
		fmt.Fprintf(stderr, "try: %s --help\n", called.CommandPath())
		return exitUsage
	}
	return exitNo
}

// untilStopped returns a context that ends at the first SIGINT or SIGTERM, for
// commands that have something to take back. A second one ends the program.
func untilStopped(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
