package daemon

import (
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"smartdns/configs"
)

func TestOnlyUnwrittenFileMappingsAreDropped(t *testing.T) {
	const smaps = `00400000-00401000 r-xp 00000000 fe:00 1 /usr/bin/smartdns
Rss: 4 kB
Anonymous: 0 kB
00401000-00402000 r--p 00001000 fe:00 1 /usr/bin/smartdns (deleted)
Anonymous: 0 kB
00402000-00403000 r--p 00002000 fe:00 1 /usr/bin/smartdns
Anonymous: 4 kB
00403000-00404000 rw-p 00003000 fe:00 1 /usr/bin/smartdns
Anonymous: 0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous: 0 kB
7f00000000-7f00001000 r--p 00000000 00:00 0
Anonymous: 0 kB
7ffc0000-7ffc1000 r-xp 00000000 00:00 0 [vdso]
Anonymous: 0 kB
`
	want := []mapping{{0x400000, 0x401000}, {0x401000, 0x402000}}
	if got := unwritten(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// The program goes on as before, with less of it in memory.
func TestDroppedPagesComeBack(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(unwritten(f)) == 0 {
		t.Error("nothing of the program is found")
	}
	for range 3 {
		if err := dropFilePages(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Compile(configs.Default()); err != nil {
		t.Error(err)
	}
}

// Collections are held until the first release, which leaves them as they were.
func TestCollectionsAreHeldUntilReleased(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	release := holdCollections()
	if p := debug.SetGCPercent(-1); p != -1 {
		t.Errorf("held: %d %%", p)
	}
	release()
	if p := debug.SetGCPercent(55); p != 77 {
		t.Errorf("released: %d %%", p)
	}
	release()
	if p := debug.SetGCPercent(77); p != 55 {
		t.Errorf("released twice: %d %%", p)
	}
}
