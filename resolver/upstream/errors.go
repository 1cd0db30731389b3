package upstream

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// several is errors that count as one, on one line.
type several []error

func (s several) Error() string {
	var texts []string
	for _, err := range s {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (s several) Unwrap() []error { return s }

// or returns s as one error, or other when there is none in it.
func (s several) or(other error) error {
	switch len(s) {
	case 0:
		return other
	case 1:
		return s[0]
	}
	return s
}

// plain returns err without the addresses that package net puts before it: the
// server is named already.
func plain(err error) error {
	op, ok := err.(*net.OpError) // what wraps one says something of its own
	switch {
	case !ok || op.Err == nil:
		return err
	case strings.HasPrefix(op.Op, "socks"):
		return fmt.Errorf("asking the SOCKS5 proxy: %w", op.Err)
	}
	return op.Err
}

// isICMP reports whether err is what an ICMP error makes of a connected socket.
func isICMP(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
