package hostdns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settle is how long a rewrite gets to be finished: programs remove, create
	// and fill in several calls.
	settle = 200 * time.Millisecond
	// latest is when we write at any rate, counted from the first sign.
	latest = 800 * time.Millisecond
	// A fight with another program helps nobody: after so many rewrites in so
	// long we warn and stop.
	mostRewrites = 5
	inSo         = time.Minute
)

// Run writes the file again when others do, at most 5 times a minute; after
// that it warns, and leaves the file alone until the next Set. It returns when
// ctx ends, with its error, or when the file's directory cannot be watched.
func (f *File) Run(ctx context.Context) error {
	signs, err := watch(ctx, f.o.Path)
	if err != nil {
		return fmt.Errorf("watching resolv.conf: %w", err)
	}
	f.assert() // what happened since Set
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first time.Time // the first sign that was not dealt with; zero: none
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err, ok := <-signs:
			if !ok || err != nil {
				return errors.Join(ctx.Err(), err)
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(settle, max(0, time.Until(first.Add(latest)))))
		case <-timer.C:
			first = time.Time{}
			f.assert()
		}
	}
}

// assert does what Set does, unless there were too many rewrites.
func (f *File) assert() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.err, errContested) {
		return
	}
	if !f.allowedLocked(time.Now()) {
		if f.isAsItShouldBe() {
			return
		}
		f.err = fmt.Errorf("%s: %w: more than %d times in a minute; stop that program, or set [listen] system = false", f.o.Path, errContested, mostRewrites)
		f.o.Logger.Warn("this host no longer asks us", "err", f.err)
		f.tellLocked()
		return
	}
	before := f.err
	wrote, err := f.setLocked()
	f.err = err
	switch {
	case wrote:
		f.recent = append(f.recent, time.Now())
		f.o.Logger.Info("resolv.conf was rewritten by somebody and names us again", "path", f.o.Path)
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.o.Logger.Warn("this host no longer asks us", "err", err)
	case err == nil && before == nil:
		return // our own write
	}
	f.tellLocked()
}

func (f *File) tellLocked() {
	if f.o.Changed != nil {
		f.o.Changed(f.err)
	}
}

// allowedLocked reports whether one more rewrite is within the limit.
func (f *File) allowedLocked(now time.Time) bool {
	for len(f.recent) > 0 && now.Sub(f.recent[0]) >= inSo {
		f.recent = f.recent[1:]
	}
	return len(f.recent) < mostRewrites
}

func (f *File) isAsItShouldBe() bool {
	ours, err := f.oursOrGone()
	if err != nil || !ours {
		return false
	}
	_, err = os.Lstat(f.o.Path)
	return err == nil
}

// watch returns a channel with a nil for each sign that path was changed, and
// an error when there will be no more. Signs are not queued.
func watch(ctx context.Context, path string) (<-chan error, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "inotify") // not blocking: Close ends a Read
	const mask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, err
	}
	signs := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		defer close(signs)
		defer stop()
		defer events.Close()
		buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
		for {
			n, err := events.Read(buf)
			if err != nil {
				select {
				case signs <- err:
				case <-ctx.Done():
				}
				return
			}
			if names(buf[:n], filepath.Base(path)) {
				select {
				case signs <- nil:
				default: // one is waiting
				}
			}
		}
	}()
	return signs, nil
}

// names reports whether an event is about name, or says that events were lost.
func names(events []byte, name string) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event, inotify(7): wd, mask, cookie, len, name.
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if end > len(events) {
			return false
		}
		if mask&unix.IN_Q_OVERFLOW != 0 || strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00") == name {
			return true
		}
		events = events[end:]
	}
	return false
}
