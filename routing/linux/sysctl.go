package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"smartdns/internal/wholefile"
)

const procSys = "/proc/sys/"

func haveIPv6() bool {
	_, err := os.Stat(procSys + "net/ipv6")
	return err == nil
}

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(procSys + key)
	return strings.TrimSpace(string(b)), err
}

func writeSysctl(key, value string) error {
	// Not os.WriteFile: there is nothing to create or truncate.
	f, err := os.OpenFile(procSys+key, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

// gone reports whether err means that the parameter's link is no more.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// sideEffects says which parameters the kernel overwrites when it turns
// forwarding on or off: the switches of every interface, and for v4 whether
// redirects are accepted.
func sideEffects(key string) []string {
	switch key {
	case "net/ipv4/ip_forward":
		return append(interfaceKeys("net/ipv4/conf/*/forwarding"), "net/ipv4/conf/all/accept_redirects")
	case "net/ipv6/conf/all/forwarding":
		return interfaceKeys("net/ipv6/conf/*/forwarding")
	}
	return nil
}

func interfaceKeys(pattern string) []string {
	files, _ := filepath.Glob(procSys + pattern)
	keys := make([]string, 0, len(files))
	for _, f := range files {
		if path.Base(path.Dir(f)) != "all" {
			keys = append(keys, strings.TrimPrefix(f, procSys))
		}
	}
	return keys
}

// errSaving is about our own file, not about the kernel.
var errSaving = errors.New("saving the old value")

// oldValue is what one parameter had before us, and those that the kernel
// changed along with it.
type oldValue struct {
	Was  string            `json:"was"`
	Also map[string]string `json:"also,omitempty"`
}

// savedSysctls keeps, in a file, the values that parameters had before us.
type savedSysctls struct {
	path string
	mu   sync.Mutex // held from reading the file to writing it; guards stuck
	// What was to be set where /proc/sys is read-only, as in a container.
	stuck map[string]string
}

// load returns what is saved, by key.
func (s *savedSysctls) load() (map[string]oldValue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loadLocked()
}

func (s *savedSysctls) loadLocked() (map[string]oldValue, error) {
	m := map[string]oldValue{}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the saved sysctls in %s: %w", s.path, err)
	}
	return m, nil
}

// storeLocked replaces the file: a crash leaves the old one or the new one.
func (s *savedSysctls) storeLocked(m map[string]oldValue) error {
	if len(m) == 0 {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", errSaving, err)
		}
		return nil
	}
	b, err := json.MarshalIndent(m, "", "\t")
	if err == nil {
		err = wholefile.ReplaceBytes(s.path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSaving, err)
	}
	return nil
}

// set writes a parameter; what it had is saved first, unless something is. One
// that this process may only read stays as it is, and is stuck.
func (s *savedSysctls) set(key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.loadLocked()
	if err != nil {
		return err
	}
	was, err := readSysctl(key)
	if err != nil {
		return err
	}
	if was != value && readOnly(key) {
		if s.stuck == nil {
			s.stuck = map[string]string{}
		}
		s.stuck[key] = value
		return nil
	}
	if _, ok := m[key]; !ok {
		old := oldValue{Was: was}
		for _, k := range sideEffects(key) {
			v, err := readSysctl(k)
			if err != nil || was == value {
				continue
			}
			if old.Also == nil {
				old.Also = map[string]string{}
			}
			old.Also[k] = v
		}
		m[key] = old
		if err := s.storeLocked(m); err != nil {
			return err
		}
	}
	if was == value {
		return nil
	}
	return writeSysctl(key, value)
}

// restore writes back what was saved, with what the kernel changed along with
// it, and forgets it. A parameter whose link is gone is only forgotten.
func (s *savedSysctls) restore(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.loadLocked()
	if err != nil {
		return err
	}
	delete(s.stuck, key)
	old, ok := m[key]
	if !ok {
		return nil
	}
	err = putBack(key, old.Was)
	for k, was := range old.Also {
		err = errors.Join(err, putBack(k, was))
	}
	if err != nil {
		return err
	}
	delete(m, key)
	return s.storeLocked(m)
}

func putBack(key, was string) error {
	now, err := readSysctl(key)
	if err == nil && now != was {
		err = writeSysctl(key, was)
	}
	if gone(err) || errors.Is(err, unix.EROFS) { // where we may not write, it was not us
		return nil
	}
	return err
}

// readOnly reports whether /proc/sys is mounted so that nobody here may write
// to it.
func readOnly(key string) bool {
	f, err := os.OpenFile(procSys+key, os.O_WRONLY, 0) // access(2) forgets capabilities
	if err == nil {
		f.Close()
	}
	return errors.Is(err, unix.EROFS)
}

// stuckNow returns what was to be set and could not.
func (s *savedSysctls) stuckNow() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.stuck)
}
