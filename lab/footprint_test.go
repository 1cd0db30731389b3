package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// footprint lists what this process holds: namespaces, sockets, children,
// goroutines.
func footprint(t *testing.T) []string {
	t.Helper()
	runtime.GC()
	var out []string
	add := func(kind, link string) {
		if s, err := os.Readlink(link); err == nil && (strings.HasPrefix(s, "net:") || strings.HasPrefix(s, "mnt:") || kind == "fd") {
			if strings.HasPrefix(s, "socket:") || strings.HasPrefix(s, "net:") || strings.HasPrefix(s, "mnt:") || strings.Contains(s, "/tun") {
				out = append(out, kind+" "+s)
			}
		}
	}
	for _, g := range []struct{ kind, glob string }{
		{"thread", "/proc/self/task/*/ns/net"}, {"thread", "/proc/self/task/*/ns/mnt"}, {"fd", "/proc/self/fd/*"},
	} {
		links, err := filepath.Glob(g.glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			add(g.kind, l)
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, c := range tasks {
		if b, err := os.ReadFile(c); err == nil && len(b) > 0 {
			out = append(out, "children "+string(b))
		}
	}
	slices.Sort(out)
	return append(slices.Compact(out), fmt.Sprintf("%d goroutines", runtime.NumGoroutine()))
}
