// Package update fetches data lists from mirrors, and puts a fetched content in
// the place of the one before only when it cannot hurt: all of it came, it shows
// what it must (checksum, signature), whoever uses the list can read it, and it
// is not half or twice of what it was.
//
// What is fetched is kept in a directory per list: the content, the one before
// it, and a record of where they are from. A reader finds the last good one by
// Stored whatever happened to the rest.
//
// The package knows nothing of what lists are for: who uses one says whether a
// content is good. Names are looked up and connections opened by the Path of a
// list alone.
package update

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// Path is how the mirrors of a list are reached.
type Path struct {
	Name   string // "direct", or a tunnel's
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Open   func() bool // reports whether packets can go; while not, nothing is tried
}

// List is a list that is fetched.
type List struct {
	Name  string
	URLs  []*url.URL // mirrors, asked in this order until one has a good content
	Every time.Duration
	Proof Proof
	Path  Path
	// Check reads the content in a file as whoever uses the list will, and says
	// what it amounts to. Its error is why the content is no good.
	Check func(file string) (Summary, error)
}

// Options is what all lists have in common.
type Options struct {
	Dir     string                // a directory per list in it
	Roots   *x509.CertPool        // who may vouch for mirrors; nil: whom the system trusts
	Private func(netip.Addr) bool // no mirror is there unless its URL says so
	// Changed is called after a list has another content, and returns when that
	// is in use.
	Changed func(ctx context.Context) error
	Now     func() time.Time // for certificates; nil: the system's clock
	Log     *slog.Logger
}

// maxTime is how long one update of a list may take, over all its mirrors.
const maxTime = 60 * time.Second

var errTooSlow = errors.New("took too long: all mirrors of a list have a minute")

// Progress is how far a download has come.
type Progress struct {
	URL             string
	Received, Total int64 // bytes; Total is -1 when the mirror has not said
}

// attempt is one update of one list.
type attempt struct {
	opts  Options
	list  List
	force bool // take what a person wants all the same
	told  func(Progress)

	failures int  // before it, where the record could not be written
	unsaved  bool // nor could it be after it

	store   store
	record  record
	current Copy
	client  *http.Client
}

// outcomes of a mirror's answer that leave the content as it is.
var (
	errSame = errors.New("the content is what we have")
	errLeft = errors.New("the content is what somebody went back from")
)

// run asks the mirrors one after the other, and reports whether the list has
// another content now. What came of it is in the record.
func (a *attempt) run(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxTime, errTooSlow)
	defer cancel()
	a.store = storeOf(a.opts.Dir, a.list.Name)
	a.record, _ = a.store.read() // a damaged one has nothing to say; mend has reported it
	a.record.Failures = max(a.record.Failures, a.failures)
	a.current = Stored(a.opts.Dir, a.list.Name)
	a.record = a.record.of(a.current)
	g := guard{mirrors: a.list.URLs, path: a.list.Path, private: a.opts.Private, now: a.opts.Now}
	client, done := g.client(a.opts.Roots)
	defer done()
	a.client = client
	if !a.list.Path.Open() {
		return false, fmt.Errorf("nothing can be fetched over %s now: it is down", a.list.Path.Name)
	}
	a.record.Tried = time.Now()
	var errs []error
	for i, from := range a.list.URLs {
		err := a.share(ctx, len(a.list.URLs)-i, from)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, errSame), errors.Is(err, errLeft):
			a.settled()
			return false, a.save()
		}
		errs = append(errs, fmt.Errorf("%s: %w", shown(from), err))
		if ctx.Err() != nil {
			break
		}
	}
	err = errors.Join(errs...)
	_, gated := errors.AsType[gatedError](err)
	a.record.Failures, a.record.Error, a.record.Gated = a.record.Failures+1, err.Error(), gated
	return false, errors.Join(err, a.save())
}

func (a *attempt) save() error {
	err := a.store.write(a.record)
	a.unsaved = err != nil
	return err
}

// share asks one of so many mirrors that are left, in its part of the time that
// is left.
func (a *attempt) share(ctx context.Context, left int, from *url.URL) error {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Until(end)/time.Duration(left), errTooSlow)
	defer cancel()
	err := a.from(ctx, from)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// settled writes into the record that nothing is wrong.
func (a *attempt) settled() {
	a.record.Checked, a.record.Failures, a.record.Error, a.record.Gated = a.record.Tried, 0, "", false
}

// from takes the content of one mirror. errSame and errLeft say that there is
// nothing to do.
func (a *attempt) from(ctx context.Context, from *url.URL) error {
	a.told(Progress{URL: shown(from), Total: -1})
	known := a.record
	if a.force || !a.proven() {
		known = record{} // the content is wanted whole
	}
	answer, err := get(ctx, a.client, from, known)
	if err != nil {
		return err
	}
	defer answer.body.Close()
	if answer.unchanged {
		return errSame
	}
	was, next := a.record, a.record
	next.URL, next.ETag, next.LastModified = from.String(), answer.etag, answer.lastModified
	err = a.store.replace(func(f *os.File) (record, error) {
		v, err := a.receive(ctx, f, from, answer)
		if err != nil {
			return record{}, err
		}
		next = next.with(v)
		next.Newest = v.Dated
		if !a.force && a.record.Newest.After(v.Dated) {
			next.Newest = a.record.Newest
		}
		next.Left = ""
		a.record = next
		a.settled()
		return a.record, nil
	})
	switch {
	case errors.Is(err, errSame), errors.Is(err, errLeft):
		a.record = next // the mirror may be asked about this answer from now on
	case err != nil:
		was.Versions = a.record.Versions // the content may have its name already
		a.record = was
	}
	return err
}

// proven reports whether the current content is whole, and has shown what the
// list has to show by now.
func (a *attempt) proven() bool {
	return a.current.Known && a.current.Problem == "" && a.current.Version.Proof == a.list.Proof.text()
}

// receive writes the content of an answer into f and judges it.
func (a *attempt) receive(ctx context.Context, f *os.File, from *url.URL, answer answer) (Version, error) {
	h := sha256.New()
	size, err := copyAll(io.MultiWriter(f, h), answer.body, func(n int64) {
		a.told(Progress{URL: shown(from), Received: n, Total: answer.length})
	})
	if err != nil {
		return Version{}, err
	}
	v := Version{SHA256: hex.EncodeToString(h.Sum(nil)), URL: from.String(), Fetched: time.Now(), Size: size, Proof: a.list.Proof.text()}
	if !a.force && a.proven() {
		switch v.SHA256 {
		case a.current.Version.SHA256:
			return v, errSame
		case a.record.Left:
			return v, errLeft
		}
	}
	if v.Dated, err = a.list.Proof.check(ctx, a.client, from, f.Name(), v.SHA256); err != nil {
		return v, err
	}
	if v.Summary, err = a.list.Check(f.Name()); err != nil {
		return v, err
	}
	if v.Summary.Entries == 0 {
		return v, errors.New("it has no entries")
	}
	ends, text, err := endsInLine(f.Name())
	if err != nil {
		return v, err
	}
	v.Dated, v.Ends = cmp.Or(v.Dated, madeIn(f.Name())), ends
	if a.force {
		return v, nil
	}
	return v, errors.Join(gate(a.current.Version.Summary, v.Summary), cut(a.current.Version, ends, text), older(a.record.Newest, v.Dated))
}
