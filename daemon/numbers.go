package daemon

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"

	"smartdns/routing"
)

// numbersFile keeps the tunnels' numbers in the run directory. The kernel shows
// them as long as the tunnels' devices are there; a userspace device ends with
// its process, and flows and sets still say the number.
func numbersFile(d Dirs) stateFile {
	return stateFile{path: filepath.Join(d.Run, "tunnels"), kind: "smartdns tunnels 1", limit: 64 << 10}
}

// saveNumbers keeps numbers for the next run.
func saveNumbers(d Dirs, numbers map[routing.Path]int) error {
	return numbersFile(d).save(func(w io.Writer) error { return json.NewEncoder(w).Encode(numbers) })
}

// forgetNumbers is for when nothing of ours is left in the kernel.
func forgetNumbers(d Dirs) error {
	err := os.Remove(numbersFile(d).path)
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// keptNumbers reads the file with one of its methods load and peek. What it
// returns beside an error is empty.
func keptNumbers(by func(func(io.Reader) error) error) (map[routing.Path]int, error) {
	var kept map[routing.Path]int
	if err := by(func(r io.Reader) error { return json.NewDecoder(r).Decode(&kept) }); err != nil {
		return nil, err
	}
	return kept, nil
}

// shownNumbers returns the numbers that the kernel shows, and of those kept the
// ones whose rules it still has.
func shownNumbers(kept map[routing.Path]int, have routing.State) map[routing.Path]int {
	shown := have.Numbers()
	for p, n := range kept {
		taken := n < 0 || n >= routing.MaxTunnels
		for q, m := range shown {
			taken = taken || p == q || n == m
		}
		if !taken && slices.ContainsFunc(have.Rules, func(r routing.Rule) bool {
			return r.Unreachable && r.Pref == uint32(routing.PrefTunnel+2*n+1)
		}) {
			shown[p] = n
		}
	}
	return shown
}
