package cache_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/cache"
)

// resident is the memory of this process, in octets.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(kib)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// raced reports whether the race detector looks on.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Whatever fills the cache, the process takes no more than 1.3 times what it was
// given: the largest entries, the smallest, all types of one name, or nothing but
// what has expired (SECURITY R-23).
func TestResidentMemoryIsTheCapacitys(t *testing.T) {
	if raced() {
		t.Log("not measured: the race detector has its own memory of it")
		return
	}
	const capacity = 32 << 20
	question := func(name string, qtype int) []byte {
		q := append([]byte{byte(len(name))}, name...)
		return binary.BigEndian.AppendUint16(append(q, 0), uint16(qtype))
	}
	for _, fill := range []struct {
		about string
		size  int // of bodies
		life  time.Duration
		key   func(dst []byte, i int) []byte
	}{
		{"the largest", cache.MaxBody, time.Hour, func(dst []byte, i int) []byte {
			return cache.AppendKey(dst, "foreign", append(question(fmt.Sprintf("n%d", i), 1), 0, 1), false, false)
		}},
		{"the smallest", 0, time.Hour, func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(i)) }},
		{"all types of one name", 700, time.Hour, func(dst []byte, i int) []byte {
			return cache.AppendKey(dst, "foreign", append(question("www", i), 0, 1), i>>16&1 != 0, i>>17&1 != 0)
		}},
		{"what has expired", 200, time.Second, func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(i)) }},
	} {
		synctest.Test(t, func(t *testing.T) {
			debug.FreeOSMemory()
			before := resident(t)
			c := cache.New(capacity)
			body, key := make([]byte, fill.size), make([]byte, 0, 64)
			n := 2 * capacity / (fill.size + 40)
			for i := range n {
				if !c.Put(fill.key(key, i), cache.Positive, body, fill.life) {
					t.Fatalf("%s: entry %d is not kept", fill.about, i)
				}
				if fill.life < time.Minute && i%1000 == 0 {
					time.Sleep(fill.life)
				}
			}
			most := resident(t) - before
			s := c.Stats()
			t.Logf("%s: %d entries put, %d there in %d octets; %.2f of the capacity resident", fill.about, n, s.Entries, s.Bytes, float64(most)/capacity)
			if most > capacity*13/10 || s.Bytes > capacity {
				t.Errorf("%s: %d octets resident for %d", fill.about, most, capacity)
			}
		})
	}
}
