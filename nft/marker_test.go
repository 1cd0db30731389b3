package nft_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// inTable runs f in a namespace of its own, in which the table is r.
func inTable(t *testing.T, mode nft.Mode, r nft.Ruleset, f func(*nft.Table)) {
	t.Helper()
	netnstest.Require(t, "nft")
	netnstest.Do(t, netnstest.New(t), func() {
		table, err := nft.Open(context.Background(), nft.Options{Mode: mode})
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		if _, err := table.Set(context.Background(), r); err != nil {
			t.Error(err)
			return
		}
		f(table)
	})
}

func to(path routing.Path, life time.Duration, addresses ...string) (out []routing.Mark) {
	for _, a := range addresses {
		out = append(out, routing.Mark{Addr: addr(a), Path: path, Life: life})
	}
	return out
}

func left(t *testing.T, table *nft.Table, a string, p routing.Path) time.Duration {
	t.Helper()
	d, ok, err := table.Element(context.Background(), addr(a), p)
	if err != nil {
		t.Error(err)
	}
	if !ok {
		return 0
	}
	return d
}

func wantLeft(t *testing.T, table *nft.Table, a string, p routing.Path, want time.Duration) {
	t.Helper()
	if got := left(t, table, a, p); got > want || got < want-10*time.Second {
		t.Errorf("%s %s: %v left, want just under %v", p, a, got, want)
	}
}

func TestMarkIsRenewedBeforeItIsTooShort(t *testing.T) {
	for _, c := range []struct {
		left, ttl time.Duration
		enough    bool
	}{
		{31 * time.Minute, 5 * time.Minute, true},
		{29 * time.Minute, 5 * time.Minute, false},
		{31 * time.Minute, 40 * time.Minute, true}, // an hour does not tell which TTL it was
		{2 * time.Hour, 2 * time.Hour, false},
		{2*time.Hour + 10*time.Minute - time.Second, 2 * time.Hour, true},
	} {
		if got := nft.Enough(c.left, routing.MarkLife(c.ttl)); got != c.enough {
			t.Errorf("%v left, life of TTL %v: enough = %v", c.left, c.ttl, got)
		}
	}
}

func TestMarkIsInTheKernelWhenItReturns(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		before := time.Now()
		until, err := table.Marker().Mark(context.Background(), 0, append(to("wg0", routing.MarkLife(5*time.Minute), foreign4), to(routing.Direct, routing.MarkLife(2*time.Hour), home6)...))
		if err != nil {
			t.Error(err)
		}
		if d := until.Sub(before); d < time.Hour-time.Second || d > time.Hour+time.Second {
			t.Errorf("the first mark ends in %v", d)
		}
		wantLeft(t, table, foreign4, "wg0", time.Hour)
		wantLeft(t, table, home6, routing.Direct, 130*time.Minute)
		marks, err := table.Marks(context.Background())
		if err != nil || len(marks) != 2 || marks[0].Addr != addr(foreign4) || marks[1].Path != routing.Direct {
			t.Errorf("listed: %v, %v", marks, err)
		}
		if _, ok, err := table.Element(context.Background(), addr(foreign4), routing.Direct); ok || err != nil {
			t.Errorf("an element that is not there: %v, %v", ok, err)
		}
	})
}

func TestMarkOfAKnownAddressAsksNobody(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		ctx, marks := context.Background(), to("wg0", routing.MarkLife(5*time.Minute), foreign4, foreign6)
		if _, err := table.Marker().Mark(ctx, 0, marks); err != nil {
			t.Error(err)
		}
		// An admin cannot: only the ledger says that it is there.
		commits := nft.Commits(table)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := table.Marker().Mark(ctx, 0, marks); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if n := nft.Commits(table) - commits; n != 0 {
			t.Errorf("%d messages to the kernel", n)
		}
	})
}

// (SECURITY N-14)
func TestMarkIsNeverShortened(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		for _, ttl := range []time.Duration{3 * time.Hour, time.Minute, 0} {
			if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", routing.MarkLife(ttl), foreign4)); err != nil {
				t.Error(err)
			}
			wantLeft(t, table, foreign4, "wg0", 190*time.Minute)
		}
	})
}

// (SECURITY N-04)
func TestMarkIsRefreshedInOneTransaction(t *testing.T) {
	marks := []routing.Mark{
		{Addr: addr(home4), Path: routing.Direct, Life: time.Hour},
		{Addr: addr(foreign4), Path: "wg0", Life: time.Hour},
		{Addr: addr("8.8.8.8"), Path: "wg0", Life: 2 * time.Hour},
		{Addr: addr("8.8.8.8"), Path: "wg0", Life: time.Hour},
	}
	for what, c := range map[string]struct {
		complete bool
		want     []string
	}{
		"what may be there": {false, []string{
			"begin",
			"add wg0_4 [8.8.8.8 2h0m0s 93.184.216.34 1h0m0s]", "delete wg0_4 [8.8.8.8 93.184.216.34]", "add wg0_4 [8.8.8.8 2h0m0s 93.184.216.34 1h0m0s]",
			"add direct_4 [39.156.66.10 1h0m0s]", "delete direct_4 [39.156.66.10]", "add direct_4 [39.156.66.10 1h0m0s] acknowledge",
			"end",
		}},
		"what is new": {true, []string{
			"begin",
			"create wg0_4 [8.8.8.8 2h0m0s 93.184.216.34 1h0m0s]", "create direct_4 [39.156.66.10 1h0m0s] acknowledge",
			"end",
		}},
	} {
		got := nft.EmitMarks(c.complete, []routing.Path{"wg0", routing.Direct}, marks)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestMarkRefreshesWhatIsOld(t *testing.T) {
	r := gateway()
	inTable(t, nft.Shared, r, func(table *nft.Table) {
		nftOut(t, "add", "element", "inet", "smartdns", "wg0_4", "{ "+foreign4+" timeout 100s, "+home4+" timeout 3h }")
		for _, a := range []string{foreign4, home4} {
			if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", routing.MarkLife(0), a)); err != nil {
				t.Error(err)
			}
		}
		wantLeft(t, table, foreign4, "wg0", time.Hour)
		wantLeft(t, table, home4, "wg0", 3*time.Hour)
	})
}

func TestMarkOfTunnelAndDirectCounts(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		for i := range 100 {
			path := routing.Path("wg0")
			if i%2 == 0 {
				path = routing.Direct
			}
			if _, err := table.Marker().Mark(context.Background(), 0, to(path, time.Hour, foreign4)); err != nil {
				t.Error(err)
			}
		}
		now, total := table.Ledger().Conflicts()
		if len(now) != 1 || now[0].Addr != addr(foreign4) || !slices.Equal(now[0].Paths, []routing.Path{"wg0", routing.Direct}) || total != 1 {
			t.Errorf("conflicts %v, %d in all", now, total)
		}
	})
}

// (SECURITY N-10, N-11)
func TestMarkIntoAFullSet(t *testing.T) {
	r := gateway()
	r.SetSize = 64
	inTable(t, nft.Owned, r, func(table *nft.Table) {
		ctx := context.Background()
		for i := range 62 {
			if _, err := table.Marker().Mark(ctx, 0, to("wg0", time.Hour, fmt.Sprintf("1.1.1.%d", i))); err != nil {
				t.Error(err)
			}
		}
		five := to("wg0", time.Hour, "2.2.2.1", "2.2.2.2", "2.2.2.3", "2.2.2.4", "2.2.2.5")
		if _, err := table.Marker().Mark(ctx, 0, five); !errors.Is(err, nft.ErrFull) {
			t.Errorf("five into two places: %v", err)
		}
		for _, m := range five {
			if _, ok, _ := table.Element(ctx, m.Addr, m.Path); ok {
				t.Errorf("%s is there although its answer failed", m.Addr)
			}
		}
		if _, err := table.Marker().Mark(ctx, 0, to("wg0", 2*time.Hour, "1.1.1.7")); err != nil {
			t.Errorf("renewing: %v", err)
		}
		if _, err := table.Marker().Mark(ctx, 0, to("wg0", time.Hour, "2.2.2.1", "2.2.2.2")); err != nil {
			t.Errorf("two into two places: %v", err)
		}
		if _, err := table.Marker().Mark(ctx, 0, to("wg0", 3*time.Hour, "1.1.1.7")); err != nil {
			t.Errorf("renewing in a full set: %v", err)
		}
	})
}

// Who answers another address each time gets so many marks and no more; those
// of others, and what he has already, go on (SECURITY N-13).
func TestOneOwnerCannotFillASet(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		ctx := context.Background()
		mark := func(owner routing.Owner, n int) error {
			_, err := table.Marker().Mark(ctx, owner, to("wg0", time.Hour, fmt.Sprintf("1.1.%d.%d", n/256, n%256)))
			return err
		}
		for n := range nft.MarksPerOwner {
			if err := mark(1, n); err != nil {
				t.Fatalf("mark %d: %v", n, err)
			}
		}
		for n := range 100 {
			if err := mark(1, 1000+n); !errors.Is(err, nft.ErrQuota) {
				t.Fatalf("mark %d: %v, want %v", nft.MarksPerOwner+n, err, nft.ErrQuota)
			}
		}
		if err := mark(1, 7); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		for _, other := range []routing.Owner{0, 2} {
			if err := mark(other, 2000+int(other)); err != nil {
				t.Errorf("of owner %d: %v", other, err)
			}
		}
		if m, err := table.Marks(ctx); len(m) != nft.MarksPerOwner+2 || err != nil {
			t.Errorf("%d marks in the kernel, %v", len(m), err)
		}
	})
}

func TestMarkFailsAloneAmongOthers(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				a := netip.AddrFrom4([4]byte{9, 9, byte(i >> 8), byte(i)})
				path := routing.Path("wg0")
				if i%10 == 0 {
					path = "nowhere"
				}
				_, err := table.Marker().Mark(context.Background(), 0, []routing.Mark{{Addr: a, Path: path, Life: time.Hour}})
				if (err != nil) != (path == "nowhere") {
					t.Errorf("%s to %s: %v", a, path, err)
				}
				if _, ok, err := table.Element(context.Background(), a, "wg0"); ok != (path == "wg0") || err != nil {
					t.Errorf("%s in the kernel: %v, %v", a, ok, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestMarkEndsWithItsContextAndTheTable(t *testing.T) {
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		table, err := nft.Open(context.Background(), nft.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, foreign4)); err == nil {
			t.Error("marked without a table")
		}
		if _, err := table.Set(context.Background(), gateway()); err != nil {
			t.Error(err)
		}
		table.Close()
		if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, foreign4)); !errors.Is(err, nft.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		table.Close()
	})
}

func TestMarkForgotten(t *testing.T) {
	inTable(t, nft.Owned, gateway(), func(table *nft.Table) {
		ctx := context.Background()
		marks := append(to("wg0", time.Hour, foreign4), to(routing.Direct, time.Hour, foreign4)...)
		if _, err := table.Marker().Mark(ctx, 7, marks); err != nil {
			t.Error(err)
		}
		if l := table.Ledger().List(); len(l) != 2 || l[0].Path != "wg0" || l[0].Owner != 7 {
			t.Errorf("ledger: %v", l)
		}
		for path, want := range map[routing.Path]bool{"wg0": true, routing.Direct: true} {
			if got := table.Ledger().Elsewhere(addr(foreign4), path); got != want {
				t.Errorf("marked elsewhere than on %s: %v", path, got)
			}
		}
		if found, err := table.Marker().Forget(ctx, addr(foreign4)); !found || err != nil {
			t.Errorf("forgetting: %v, %v", found, err)
		}
		if found, err := table.Marker().Forget(ctx, addr(foreign4)); found || err != nil {
			t.Errorf("forgetting again: %v, %v", found, err)
		}
		if m, err := table.Marks(ctx); len(m) != 0 || err != nil {
			t.Errorf("still there: %v, %v", m, err)
		}
		if table.Ledger().Elsewhere(addr(foreign4), "wg0") {
			t.Error("a forgotten mark sends it elsewhere")
		}
		if _, err := table.Marker().Mark(ctx, 0, marks[:1]); err != nil || table.Ledger().Elsewhere(addr(foreign4), "wg0") {
			t.Errorf("a mark for the path itself sends it elsewhere: %v", err)
		}
		if _, err := table.Marker().Mark(ctx, 0, marks); err != nil || left(t, table, foreign4, "wg0") == 0 {
			t.Errorf("marking again: %v", err)
		}
	})
}

func TestMarkIsThereAfterAFlush(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		for i := range 100 {
			nftOut(t, "flush", "set", "inet", "smartdns", "wg0_4")
			if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, foreign4)); err != nil {
				t.Error(err)
			}
			if left(t, table, foreign4, "wg0") == 0 {
				t.Fatalf("flush %d: the element was not there", i)
			}
		}
	})
}

func TestMarksOfManyAtOnce(t *testing.T) {
	r := gateway()
	r.SetSize = 0
	inTable(t, nft.Shared, r, func(table *nft.Table) {
		var wg sync.WaitGroup
		const workers, each = 64, 100
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					n := uint32(w*each+i)*7 + 1<<24
					a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
					if _, err := table.Marker().Mark(context.Background(), 0, []routing.Mark{{Addr: a, Path: "wg0", Life: time.Hour}}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		marks, err := table.Marks(context.Background())
		if err != nil || len(marks) != workers*each {
			t.Errorf("%d marks, %v, want %d", len(marks), err, workers*each)
		}
		select {
		case <-table.Lost():
			t.Error("our own marks look like changes of others")
		default:
		}
	})
}
