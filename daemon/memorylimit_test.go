package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// The least limit counts, of our group or of one around it, whichever version of
// control groups the system has, and in a container too.
func TestLimitOfTheControlGroup(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"system.slice/memory.max":                       "268435456\n",
		"system.slice/smartdns.service/memory.max":      "max\n",
		"small.slice/memory.max":                        "max\n",
		"small.slice/smartdns.service/memory.max":       "67108864\n",
		"memory/memory.limit_in_bytes":                  "9223372036854771712\n",
		"memory/docker/0123/memory.limit_in_bytes":      "134217728\n",
		"memory/docker/0123/deep/memory.limit_in_bytes": "9223372036854771712\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for membership, want := range map[string]int64{
		"0::/small.slice/smartdns.service\n":              64 << 20,
		"0::/system.slice/smartdns.service\n":             256 << 20,
		"8:pids:/small.slice\n4:memory:/docker/0123/deep": 128 << 20,
		"4:memory:/gone/from/here\n":                      9223372036854771712,
		"0::/nowhere\n":                                   0,
		"0::/../../etc\n":                                 0,
		"4:memory\nnonsense\n\n":                          0,
	} {
		if n, ok := groupLimit(root, membership); n != want || ok != (want != 0) {
			t.Errorf("%q: %d (%t), want %d", membership, n, ok, want)
		}
	}
}
