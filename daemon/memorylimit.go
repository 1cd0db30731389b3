package daemon

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryLimit is what Go may use before it collects harder, in octets: 200 MiB,
// a quarter of the machine's memory, or three quarters of what our control group
// may have, whichever is least.
func memoryLimit() int64 {
	limit := int64(200 << 20)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
				if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					limit = min(limit, kib<<10/4)
				}
			}
		}
	}
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		if own, ok := groupLimit("/sys/fs/cgroup", string(b)); ok {
			limit = min(limit, own/4*3)
		}
	}
	return limit
}

// groupLimit returns the least memory limit, in octets, of the control groups
// that membership names, as /proc/PID/cgroup does, and of those around them, at
// root; and whether there is one. A container may see only its own group, at the
// root, under a name that the host knows: what is not there is passed over.
func groupLimit(root, membership string) (least int64, ok bool) {
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, file := root, "memory.max"
		switch parts[1] {
		case "":
		case "memory":
			dir, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			b, err := os.ReadFile(filepath.Join(dir, group, file))
			n, bad := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64) // "max" is no limit
			if err == nil && bad == nil && n > 0 && (!ok || n < least) {
				least, ok = n, true
			}
			if group == "/" {
				break
			}
		}
	}
	return least, ok
}
