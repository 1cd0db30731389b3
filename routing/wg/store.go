package wg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"

	"smartdns/internal/wholefile"
)

// keptAddresses is how many addresses of a name are remembered; providers
// rotate through a few.
const keptAddresses = 8

// Store remembers on disk which addresses of an endpoint's name have once shaken
// hands: they are tried first, before anybody is asked. Its methods may be
// called concurrently.
type Store struct {
	path string

	mu    sync.Mutex // guards following
	names map[string][]netip.Addr
}

// OpenStore reads the store at path; none there is an empty one. A file that
// cannot be understood is moved to path.corrupt with a warning, for it is only a
// memory.
func OpenStore(path string, log *slog.Logger) (*Store, error) {
	s := &Store{path: path, names: map[string][]netip.Addr{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the known endpoints: %w", err)
	}
	if err := json.Unmarshal(data, &s.names); err != nil || s.names == nil {
		s.names = map[string][]netip.Addr{}
		aside := path + ".corrupt"
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("setting the corrupt known endpoints aside: %w", err)
		}
		log.Warn("the known endpoints were corrupt: starting without", "aside", aside)
	}
	return s, nil
}

// Known returns the addresses of host that once shook hands, the last first.
func (s *Store) Known(host string) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names[host])
}

// Add remembers that addr of host shook hands. It is on disk when Add returns.
func (s *Store) Add(host string, addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.names[host]
	if len(known) > 0 && known[0] == addr {
		return nil
	}
	known = slices.DeleteFunc(slices.Clone(known), func(a netip.Addr) bool { return a == addr })
	known = slices.Insert(known, 0, addr)
	s.names[host] = known[:min(len(known), keptAddresses)]
	data, err := json.MarshalIndent(s.names, "", "\t")
	if err == nil {
		err = wholefile.ReplaceBytes(s.path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the known endpoints: %w", err)
	}
	return nil
}
