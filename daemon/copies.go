package daemon

import (
	"errors"
	"maps"
	"path/filepath"

	"smartdns/configs"
	"smartdns/geo/update"
)

// copies are the contents of the lists that are fetched, as they are stored. A
// list without one is empty, or what the program has of that name: nothing waits
// for a download.
type copies map[string]storedCopy

// storedCopy is a file to read a list from; "" when there is none.
type storedCopy struct {
	path    string
	problem string // why there is none, or not the newest; "" for neither
}

// listsDir is where fetched lists are kept.
func listsDir(d Dirs) string { return filepath.Join(d.State, "lists") }

// openCopies finds what is stored of the lists of c. It changes nothing.
func openCopies(d Dirs, c *configs.Config) copies {
	all := copies{}
	for _, x := range c.Lists {
		if len(x.Fetch.URLs) > 0 {
			s := update.Stored(listsDir(d), x.Name)
			all[x.Name] = storedCopy{s.Path, s.Problem}
		}
	}
	return all
}

// without returns the copies but that of one list, which cannot be used.
func (c copies) without(list string, why error) copies {
	all := maps.Clone(c)
	all[list] = storedCopy{problem: why.Error()}
	return all
}

// copyError says that the content of a list that was fetched cannot be used.
type copyError struct {
	list string
	err  error
}

func (e *copyError) Error() string { return e.err.Error() }
func (e *copyError) Unwrap() error { return e.err }

// CompileStored is Compile with the stored contents of fetched lists. One that
// cannot be used, say because the file wants another kind of list by now, is left
// out, and its status says why.
func CompileStored(c *configs.Config, d Dirs) (*Parts, error) {
	stored := openCopies(d, c)
	for {
		p, err := compile(c, stored)
		bad, ok := errors.AsType[*copyError](err)
		if !ok {
			return p, err
		}
		stored = stored.without(bad.list, bad.err)
	}
}
