package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/lab/netnstest"
)

// A full table of flows is an error with its fix, one with little room a
// warning, and a kernel without one nothing to say (SECURITY R-27).
func TestFullConntrackTable(t *testing.T) {
	for _, c := range []struct {
		flows
		severity, what string
	}{
		{flows{}, "", ""},
		{flows{count: 7}, "", ""},
		{flows{0, 256}, "", ""},
		{flows{243, 256}, "", ""},
		{flows{244, 256}, severityWarning, "nearly full"},
		{flows{255, 256}, severityWarning, "nearly full"},
		{flows{256, 256}, severityError, "is full"},
		{flows{300, 256}, severityError, "is full"},
		{flows{61_000, 65_536}, "", ""},
		{flows{62_260, 65_536}, severityWarning, "nearly full"},
	} {
		got, ok := c.condition()
		if ok != (c.severity != "") || got.Severity != c.severity || !strings.Contains(got.What, c.what) {
			t.Errorf("%+v: %+v", c.flows, got)
		}
		if ok && !strings.HasPrefix(got.Fix, "sysctl -w net.netfilter.nf_conntrack_max=") {
			t.Errorf("%+v: fix %q", c.flows, got.Fix)
		}
	}
}

func TestConntrackNumbersAreTheKernels(t *testing.T) {
	dir := t.TempDir()
	if got := readFlows(dir); got != (flows{}) {
		t.Errorf("without the files: %+v", got)
	}
	for name, text := range map[string]string{"nf_conntrack_count": "250\n", "nf_conntrack_max": "256\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFlows(dir); got != (flows{250, 256}) {
		t.Errorf("%+v", got)
	}
}

// What the table comes to is in the log within 5 s, once (SECURITY R-27).
func TestFullConntrackTableIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var now atomic.Pointer[flows]
		now.Store(&flows{1, 256})
		ctx, cancel := context.WithCancel(t.Context())
		go watchFlows(ctx, func() flows { return *now.Load() }, slog.New(slog.NewTextHandler(&out, nil)))
		pass := func(f flows) string {
			out.Reset()
			now.Store(&f)
			<-time.After(5 * time.Second)
			synctest.Wait()
			return out.String()
		}
		if got := pass(flows{1, 256}); got != "" {
			t.Errorf("with room: %s", got)
		}
		if got := pass(flows{256, 256}); !strings.Contains(got, "WARN") || !strings.Contains(got, "nf_conntrack_max=512") {
			t.Errorf("full: %s", got)
		}
		if got := pass(flows{256, 256}); got != "" {
			t.Errorf("still full: %s", got)
		}
		if got := pass(flows{2, 256}); !strings.Contains(got, "room again") {
			t.Errorf("with room again: %s", got)
		}
		cancel()
		synctest.Wait()
	})
}

// The numbers are those of the namespace that the daemon runs in (SECURITY
//
func TestConntrackNumbersAreTheNamespaces(t *testing.T) {
	netnstest.Require(t, "nft")
	nft := exec.Command("nft", "table inet others { chain in { type filter hook input priority 0; ct state new counter; }; }")
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("having the kernel track flows: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("nft", "delete table inet others").Run() })
	before := readFlows(conntrackDir)
	if before.most <= 0 {
		t.Fatalf("the kernel has no limit: %+v", before)
	}
	const more = 300
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range more {
		if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 9, byte(i>>8), byte(i)), Port: 9}); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	if after := readFlows(conntrackDir); after.count < before.count+more || after.most != before.most {
		t.Errorf("%d flows more: %+v, before %+v", more, after, before)
	}
}
