package daemon

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// holdCollections keeps the garbage collector from running, unless the memory
// limit asks for it, until release is called: of what a start makes, hardly
// anything is garbage before it is done.
func holdCollections() (release func()) {
	percent := debug.SetGCPercent(-1)
	return sync.OnceFunc(func() { debug.SetGCPercent(percent) })
}

// giveBack returns to the kernel what only the start needed: garbage, which an
// idle resolver would come to collect after hours, and the mapped pages of our
// own program, which it reads again when they are called.
func giveBack(log *slog.Logger) {
	debug.FreeOSMemory()
	if err := dropFilePages(); err != nil {
		log.Debug("the program's pages stay mapped", "err", err)
	}
}

// dropFilePages unmaps what is mapped from files and was never written.
func dropFilePages() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	for _, m := range unwritten(f) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmapping pages: %w", errno)
		}
	}
	return nil
}

// mapping is a range of our addresses.
type mapping struct{ from, to uintptr }

// unwritten returns the mappings of files in smaps (proc(5)) that cannot be
// written and have no page that was, as relocation does before it locks them.
func unwritten(smaps io.Reader) []mapping {
	var all []mapping
	var at mapping
	readOnly := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") {
			_, err := fmt.Sscanf(fields[0], "%x-%x", &at.from, &at.to)
			readOnly = err == nil && len(fields) >= 6 && strings.HasPrefix(fields[5], "/") && (fields[1] == "r-xp" || fields[1] == "r--p")
			continue
		}
		if readOnly && fields[0] == "Anonymous:" && fields[1] == "0" {
			all = append(all, at)
		}
	}
	return all
}
