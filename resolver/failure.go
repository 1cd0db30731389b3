package resolver

import (
	"errors"

	"smartdns/resolver/upstream"
)

var (
	errRefused = errors.New("said")
	errPanic   = errors.New("the exchange broke down")
	errTooMany = errors.New("more than 12 questions for one query")
	errMemory  = errors.New("too many replies are being read")
	errWaited  = errors.New("no answer in time")
)

// causes are the failures that say something else than that a side could not
// be reached. The cache remembers them by their place here.
var causes = [...]error{errRefused, errMalformed, errLoop, errTooLong, errPanic, errOverload, errTooMany, errMemory, errCameBack}

// failure is an error as the cache keeps it.
type failure struct {
	text  string
	cause error // one of causes; nil: the side could not be reached
}

func (f failure) Error() string { return f.text }
func (f failure) Unwrap() error { return f.cause }

func failureOf(err error) failure {
	for _, cause := range causes {
		if errors.Is(err, cause) {
			return failure{err.Error(), cause}
		}
	}
	return failure{text: err.Error()}
}

// append appends f in the form that readFailure reads.
func (f failure) append(dst []byte) []byte {
	place := byte(len(causes))
	for i, cause := range causes {
		if f.cause == cause {
			place = byte(i)
		}
	}
	return append(append(dst, place), f.text...)
}

func readFailure(b []byte) failure {
	f := failure{text: string(b[1:])}
	if place := int(b[0]); place < len(causes) {
		f.cause = causes[place]
	}
	return f
}

// unreachable reports whether err, of an exchange with a side, says that
// nobody there can be asked now. Whoever said something, even that it will
// not answer, was reached; and one lost packet is no lost side.
func (s Side) unreachable(err error) bool {
	if s.Exchanger == nil || failureOf(err).cause != nil {
		return false
	}
	for _, server := range upstream.Health(s.Exchanger) {
		if server.Up {
			return false
		}
	}
	return true
}
