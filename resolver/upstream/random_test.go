package upstream_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// TestPortsAndIDsAreUnpredictable does the statistics of S-01 (SECURITY S-01) on
// 5,000 queries, on plain sockets and on marked and bound ones. An even spread
// fails one of them once in some hundred runs, so that only a series that fails
// twice is no accident.
func TestPortsAndIDsAreUnpredictable(t *testing.T) {
	netnstest.Require(t)
	marked := func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			raw.Control(func(fd uintptr) {
				if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0x1000000); err == nil {
					err = unix.BindToDevice(int(fd), "lo")
				}
			})
			return err
		}}
		return d.DialContext(ctx, network, address)
	}
	for name, dial := range map[string]upstream.Dial{"plain": dial, "marked": marked} {
		t.Run(name, func(t *testing.T) {
			why := oddity(t, dial)
			if why != "" {
				t.Logf("the first 5,000 queries: %s", why)
				why = oddity(t, dial)
			}
			if why != "" {
				t.Error(why)
			}
		})
	}
}

// oddity asks 5,000 questions through dial and says what is predictable about
// their ports and IDs, "" when nothing is.
func oddity(t *testing.T, dial upstream.Dial) string {
	t.Helper()
	const n = 5000
	f := serve(t, truthUDP, truthTCP)
	ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true, Dial: dial})
	q := query(asked)
	for range n {
		if _, err := ex.Exchange(testContext(t), q); err != nil {
			t.Fatal(err)
		}
	}
	var ports, ids []float64
	for _, p := range f.packets() {
		ports = append(ports, float64(p.from.Port()))
		ids = append(ids, float64(wire.ID(p.msg)))
	}
	// 5,000 draws from 28,232 ports (the kernel uses one parity first, so half
	// of them) and from 65,536 IDs: 4,582 and 4,814 are expected.
	if d := distinct(ports); d < 4400 {
		return fmt.Sprintf("%d distinct ports of %d", d, n)
	}
	if d := distinct(ids); d < 4700 {
		return fmt.Sprintf("%d distinct IDs of %d", d, n)
	}
	for what, values := range map[string][]float64{"ports": ports, "IDs": ids} {
		// 63 degrees of freedom: 103.4 is exceeded once in 1,000.
		if x := chi2(values); x > 103.4 {
			return fmt.Sprintf("%s: chi square %.1f over 64 buckets", what, x)
		}
		if r := lag1(values); math.Abs(r) > 0.05 {
			return fmt.Sprintf("%s: lag-1 correlation %.3f", what, r)
		}
	}
	return ""
}

func distinct(values []float64) int {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return len(slices.Compact(sorted))
}

// chi2 compares the values, spread over 64 buckets of their range, with an
// even spread.
func chi2(values []float64) float64 {
	low, high := slices.Min(values), slices.Max(values)+1
	var buckets [64]float64
	for _, v := range values {
		buckets[int(64*(v-low)/(high-low))]++
	}
	want, sum := float64(len(values))/64, 0.0
	for _, n := range buckets {
		sum += (n - want) * (n - want) / want
	}
	return sum
}

func lag1(values []float64) float64 {
	mean := 0.0
	for _, v := range values {
		mean += v / float64(len(values))
	}
	var cov, variance float64
	for i, v := range values {
		variance += (v - mean) * (v - mean)
		if i > 0 {
			cov += (v - mean) * (values[i-1] - mean)
		}
	}
	return cov / variance
}
