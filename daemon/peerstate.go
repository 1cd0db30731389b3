package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"smartdns/internal/wholefile"
	"smartdns/routing"
)

// Where the far ends of this host keep what they have to take back, below the
// run directory: it outlives them, and not a reboot.
const (
	peersDir         = "peers"
	peerSysctlsName  = "sysctls.saved" // what the far ends' sysctls were before the first of them
	peerInstanceName = instanceName + "-peer-"
)

// peerState is a far end that is up, or was when its process was killed.
type peerState struct {
	Name    string           `json:"name"` // of its link
	File    string           `json:"file"`
	LAN     []string         `json:"lan,omitempty"`
	SNAT    []netip.Addr     `json:"snat,omitempty"`
	Hooks   bool             `json:"hooks,omitempty"`
	Made    bool             `json:"made"` // its link is ours
	Sysctls []routing.Sysctl `json:"sysctls,omitempty"`
	Proxies []routing.Proxy  `json:"proxies,omitempty"`
}

func peersPath(o Options) string { return filepath.Join(o.Dirs.Run, peersDir) }

func peerFile(o Options, name string) string { return filepath.Join(peersPath(o), name+".json") }

// lockPeers makes the caller the only one that changes far ends, once all others
// have done with it.
func lockPeers(o Options) (release func(), err error) {
	if err := os.MkdirAll(peersPath(o), 0o700); err != nil {
		return nil, fmt.Errorf("making the run directory: %w", err)
	}
	path := filepath.Join(peersPath(o), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the far ends: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking the far ends: %w", err)
		}
	}
	return func() { f.Close() }, nil
}

func readPeer(o Options, name string) (peerState, bool) {
	var s peerState
	b, err := os.ReadFile(peerFile(o, name))
	return s, err == nil && json.Unmarshal(b, &s) == nil && s.Name == name
}

// peersUp returns the far ends that are up, by name.
func peersUp(o Options) []peerState {
	files, _ := filepath.Glob(filepath.Join(peersPath(o), "*.json"))
	var all []peerState
	for _, f := range files {
		if s, ok := readPeer(o, strings.TrimSuffix(filepath.Base(f), ".json")); ok {
			all = append(all, s)
		}
	}
	return all
}

// withoutFarEnds leaves the links out that far ends of ours have.
func withoutFarEnds(o Options, links []routing.Iface) []routing.Iface {
	ours := peersUp(o)
	return slices.DeleteFunc(slices.Clone(links), func(l routing.Iface) bool {
		return slices.ContainsFunc(ours, func(s peerState) bool { return s.Made && s.Name == l.Name })
	})
}

func (s peerState) keep(o Options) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err == nil {
		err = wholefile.ReplaceBytes(peerFile(o, s.Name), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keeping what is up: %w", err)
	}
	return nil
}

func (s peerState) forget(o Options) error {
	if err := os.Remove(peerFile(o, s.Name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sysctlsOfOthers are what the far ends other than name want.
func sysctlsOfOthers(o Options, name string) []routing.Sysctl {
	var all []routing.Sysctl
	for _, s := range peersUp(o) {
		if s.Name != name {
			all = append(all, s.Sysctls...)
		}
	}
	return all
}

// addSysctls returns the union of both by key.
func addSysctls(to, more []routing.Sysctl) []routing.Sysctl {
	for _, m := range more {
		if !slices.ContainsFunc(to, func(s routing.Sysctl) bool { return s.Key == m.Key }) {
			to = append(to, m)
		}
	}
	return to
}

// peerWord returns the far end and the file that a word means: the name of one
// that is up, or what quickFile takes. "" is the only one that is up.
func peerWord(o Options, word string) (peerState, error) {
	if word == "" {
		switch up := peersUp(o); len(up) {
		case 1:
			return up[0], nil
		case 0:
			return peerState{}, errors.New("no far end is up: name its wg-quick file")
		default:
			return peerState{}, fmt.Errorf("%d far ends are up: name one", len(up))
		}
	}
	if s, ok := readPeer(o, word); ok {
		return s, nil
	}
	path, name, err := quickFile(word)
	if err != nil {
		return peerState{}, err
	}
	if s, ok := readPeer(o, string(name)); ok && s.File == path {
		return s, nil
	}
	return peerState{Name: string(name), File: path}, nil
}
