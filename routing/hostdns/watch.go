package hostdns

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sign says that something was changed. Signs are not queued.
func sign(signs chan<- error) {
	select {
	case signs <- nil:
	default: // one is waiting
	}
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// watch returns a channel with a nil for each sign that path was changed, and
// an error when there will be no more.
func watch(ctx context.Context, path string) (chan error, error) {
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
	if isMount(path) { // its writers are not seen in our directory
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE_WRITE); err != nil {
			events.Close()
			return nil, err
		}
	}
	signs := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
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
				sign(signs)
			}
		}
	}()
	return signs, nil
}

// names reports whether an event is about name, or without a name, as those of
// a watched file are, or says that events were lost.
func names(events []byte, name string) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event, inotify(7): wd, mask, cookie, len, name.
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if end > len(events) {
			return false
		}
		about := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		if mask&unix.IN_Q_OVERFLOW != 0 || about == name || about == "" {
			return true
		}
		events = events[end:]
	}
	return false
}
