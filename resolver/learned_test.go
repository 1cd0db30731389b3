package resolver_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/dnsname"
)

func nth(i int) dnsname.FQDN { return dnsname.FQDN(fmt.Sprintf("n%d.example.org.", i)) }

func knows(l *resolver.Learned, name dnsname.FQDN) bool {
	return slices.ContainsFunc(l.All(), func(v resolver.Verdict) bool { return v.Name == name })
}

// Names that somebody makes up push out each other, not those in use, and no
// pin.
func TestVerdictsAreBoundedByBytes(t *testing.T) {
	const limit = 64 << 10
	l := resolver.NewLearned(limit)
	if err := l.Pin("pinned.example.org.", geo.Abroad); err != nil {
		t.Fatal(err)
	}
	l.Learn("used.example.org.", geo.Home, "test")
	l.Use("used.example.org.")
	l.Use("used.example.org.")
	l.Learn("once.example.org.", geo.Home, "test")
	for i := range 10_000 {
		l.Learn(nth(i), geo.Abroad, "made up")
		if used, _ := l.Bytes(); used > limit {
			t.Fatalf("%d bytes after %d names, with a limit of %d", used, i, limit)
		}
	}
	for name, want := range map[dnsname.FQDN]bool{
		"pinned.example.org.": true, "used.example.org.": true, "once.example.org.": false, nth(0): false, nth(9999): true,
	} {
		if knows(l, name) != want {
			t.Errorf("%s: known %v, want %v", name, !want, want)
		}
	}
	// Those in use cannot keep every new name out for ever.
	for i := range 10_000 {
		l.Learn(nth(i), geo.Abroad, "in use")
		l.Use(nth(i))
		l.Use(nth(i))
	}
	if knows(l, "used.example.org.") {
		t.Error("the one that was longest without use is still there")
	}
}

func TestPinsAreBounded(t *testing.T) {
	l := resolver.NewLearned(16 << 10)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = l.Pin(nth(n), geo.Home)
	}
	if !errors.Is(err, resolver.ErrTooManyPins) {
		t.Fatalf("%d pins: %v", n, err)
	}
	if err := l.Pin(nth(0), geo.Abroad); err != nil {
		t.Errorf("changing a pin: %v", err)
	}
	l.Learn("x.org.", geo.Home, "test")
	if !knows(l, "x.org.") {
		t.Error("no room is left for what is learned")
	}
}

func TestForgetUnder(t *testing.T) {
	l := resolver.NewLearned(1 << 20)
	for _, n := range []dnsname.FQDN{"example.org.", "www.example.org.", "notexample.org."} {
		l.Learn(n, geo.Home, "test")
	}
	if err := l.Pin("pin.example.org.", geo.Home); err != nil {
		t.Fatal(err)
	}
	if gone, pinned := l.ForgetUnder("example.org."); gone != 2 || pinned != 1 {
		t.Errorf("%d gone, %d pinned", gone, pinned)
	}
	if !knows(l, "notexample.org.") || !knows(l, "pin.example.org.") || knows(l, "www.example.org.") {
		t.Errorf("%+v", l.All())
	}
	if !l.Forget("pin.example.org.") || l.Forget("pin.example.org.") {
		t.Error("Forget says wrong whether there was a verdict")
	}
}

// file is what Write writes of l.
func file(t testing.TB, l *resolver.Learned, pins bool) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.Write(&b, pins); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sorted(l *resolver.Learned) []resolver.Verdict {
	all := l.All()
	slices.SortFunc(all, func(a, b resolver.Verdict) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}

func TestVerdictsOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := resolver.NewLearned(1 << 20)
		l.Learn("a.example.org.", geo.Home, "39.156.1.1, for a client in 114.240.0.0/24")
		if err := l.Pin(`odd\032name\\.org.`, geo.Abroad); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		l.Learn("b.example.org.", geo.Abroad, "93.184.216.34, for a client abroad")
		l.Use("a.example.org.")
		time.Sleep(time.Hour)
		learned, pins := file(t, l, false), file(t, l, true)
		want := sorted(l)
		time.Sleep(6 * 24 * time.Hour)
		next := resolver.NewLearned(1 << 20)
		for _, f := range [][]byte{pins, learned} {
			if err := next.Read(bytes.NewReader(f)); err != nil {
				t.Fatalf("%v\n%s", err, f)
			}
		}
		for i := range want {
			want[i].Age += 6 * 24 * time.Hour // the time in between counts
			want[i].Idle += 6 * 24 * time.Hour
		}
		if d := cmp.Diff(want, sorted(next)); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if _, due, ok := next.Use("a.example.org."); !ok || !due {
			t.Error("a verdict 7 days old is not judged again")
		}
		if _, due, ok := next.Use("a.example.org."); !ok || due {
			t.Error("it is due twice within an hour")
		}
	})
}

// A router without a battery starts in 1970. Nothing is lost by it, neither at
// once nor in the file that it writes then.
func TestVerdictsWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(56 * 365 * 24 * time.Hour) // as if by a clock that was right
		body := fmt.Sprintf("written %d\nlearned home %d %d 3 0 a.example.org. test\n",
			at.Unix(), at.Add(-48*time.Hour).Unix(), at.Add(-time.Hour).Unix())
		l := resolver.NewLearned(1 << 20)
		if err := l.Read(strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want := []resolver.Verdict{{
			Name: "a.example.org.", Region: geo.Home, Why: "test", Hits: 3,
			Age: 48*time.Hour + time.Minute, Idle: time.Hour + time.Minute,
		}}
		if d := cmp.Diff(want, l.All()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		again := file(t, l, false)
		time.Sleep(56 * 365 * 24 * time.Hour) // the clock is right again
		next := resolver.NewLearned(1 << 20)
		if err := next.Read(bytes.NewReader(again)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, next.All()); d != "" {
			t.Errorf("after another restart (-want +got)\n%s", d)
		}
	})
}

// FuzzVerdictFile feeds what a file with the right checksum could hold.
// What is read must be written as something that reads the same.
func FuzzVerdictFile(f *testing.F) {
	l := resolver.NewLearned(1 << 20)
	l.Learn("www.example.org.", geo.Home, "39.156.1.1, for a client in 114.240.0.0/24")
	f.Add(string(file(f, l, false)))
	f.Add("written 1795377600\npinned abroad 0 1795377600 18446744073709551615 4294967295 \\000. \n")
	f.Add("written 0\nlearned home 1099511627776 0 1 1 . x\nlearned home 0 0 0 0 . y\n")
	f.Fuzz(func(t *testing.T, body string) {
		l := resolver.NewLearned(64 << 10)
		if l.Read(strings.NewReader(body)) != nil {
			if len(l.All()) != 0 {
				t.Error("a file that is refused entered something")
			}
			return
		}
		again := resolver.NewLearned(64 << 10)
		for _, pins := range []bool{true, false} {
			if err := again.Read(bytes.NewReader(file(t, l, pins))); err != nil {
				t.Fatalf("what was written does not read: %v\n%s", err, file(t, l, pins))
			}
		}
		names := func(l *resolver.Learned) (all []string) {
			for _, v := range sorted(l) {
				all = append(all, fmt.Sprint(v.Name, v.Region, v.Pinned, v.Hits, v.Confirmed, v.Why))
			}
			return all
		}
		if d := cmp.Diff(names(l), names(again)); d != "" {
			t.Errorf("(-first +second)\n%s", d)
		}
	})
}
