package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"smartdns/internal/wholefile"
	"smartdns/routing"
	"smartdns/routing/wg"
)

// removeLeftFiles removes what a killed daemon left beside the kernel's state:
// its sockets, those of its userspace tunnels, and the files of the run
// directory that it was writing. Nobody may have the claim. It returns what it
// did, as commands.
func removeLeftFiles(o Options, tunnels []routing.Path) (done []string, err error) {
	paths := []string{filepath.Join(o.Dirs.Run, SocketName)}
	for _, f := range []string{filepath.Join(o.Dirs.Run, sysctlsName), numbersFile(o.Dirs).path, raisedFile(o)} {
		paths = append(paths, wholefile.Temporary(f))
	}
	var errs []error
	for _, t := range tunnels {
		if path, stale := wg.StaleSocket(string(t)); stale {
			paths = append(paths, path)
		}
	}
	for _, p := range paths {
		switch err := os.Remove(p); {
		case err == nil:
			done = append(done, "rm "+p)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return done, errors.Join(errs...)
}
