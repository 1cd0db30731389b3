package netnstest_test

import (
	"net"
	"os"
	"testing"

	"smartdns/lab/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestOwnNamespace(t *testing.T) {
	netnstest.Require(t)
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			t.Errorf("%s is up: this is not a fresh namespace", i.Name)
		}
	}
	if e, err := os.ReadDir("/run"); err != nil || len(e) != 0 {
		t.Errorf("/run holds %v (%v), want it empty", e, err)
	}
}

func TestDoEntersTheNamespace(t *testing.T) {
	ns := netnstest.New(t)
	inode := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	var inside string
	netnstest.Do(t, ns, func() { inside = inode() })
	if outside := inode(); inside == outside {
		t.Errorf("Do ran in %s, the namespace of its caller", inside)
	}
}
