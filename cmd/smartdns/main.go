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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newRoot(stdout, stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	called, err := cmd.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	}
	fmt.Fprintf(stderr, "smartdns: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "try: %s --help\n", called.CommandPath())
		return exitUsage
	}
	return exitNo
}
