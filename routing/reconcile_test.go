package routing_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/routing"
	"smartdns/routing/routingtest"
)

// reconciler runs a Reconciler of k until the test ends.
func reconciler(t *testing.T, k *routingtest.Kernel) *routing.Reconciler {
	r := routing.NewReconciler(k, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func set(t *testing.T, r *routing.Reconciler, in routing.Input) []routing.Step {
	t.Helper()
	steps, err := r.Set(t.Context(), in)
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return steps
}

func dropRule(s *routing.State, _ *routing.Facts) {
	s.Rules = slices.DeleteFunc(slices.Clone(s.Rules), func(r routing.Rule) bool { return r.Pref == 5101 && r.Family == routing.V4 })
}

func kinds(s *routing.Status) []routing.ConditionKind {
	var k []routing.ConditionKind
	for _, c := range s.Conditions {
		k = append(k, c.Kind)
	}
	return k
}

func TestSetIsIdempotentAndItsZeroInputRemovesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := reconciler(t, k)
		if len(set(t, r, oneTunnel())) == 0 {
			t.Error("the first Set took no steps")
		}
		if s := set(t, r, oneTunnel()); len(s) != 0 {
			t.Errorf("the second Set took steps:\n%s", lines(s))
		}
		set(t, r, routing.Input{})
		have, _, _ := k.Observe(t.Context(), []int{3})
		if len(have.Rules)+len(have.Routes)+len(have.Addrs)+len(have.Sysctls) != 0 {
			t.Errorf("after the zero Input: %+v", have)
		}
	})
}

func TestNothingIsChangedBeforeTheFirstSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		k.Edit(func(s *routing.State, f *routing.Facts) { *s = routing.Plan(oneTunnel(), *f) })
		r := reconciler(t, k)
		time.Sleep(time.Hour)
		if a := k.Applied(); len(a) != 0 {
			t.Errorf("steps before Set:\n%s", lines(a))
		}
		if up := r.Status().Facts.Uplinks(); !slices.Equal(up, []string{"eth0"}) {
			t.Errorf("uplinks in Status: %v", up)
		}
	})
}

func TestFirstRepairIsAtOnceAndEventsAfterItAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := reconciler(t, k)
		set(t, r, oneTunnel())
		time.Sleep(90 * time.Second) // between two resyncs
		k.Applied()

		k.Edit(dropRule)
		synctest.Wait() // no time passes
		if got, want := lines(k.Applied()), "ip rule add pref 5101 fwmark 0x2000000/0x3f000000 lookup 52001 proto 153\n"; got != want {
			t.Errorf("repaired at once:\n%swant\n%s", got, want)
		}
		for range 20 {
			k.Edit(dropRule)
			synctest.Wait()
		}
		if a := k.Applied(); len(a) != 0 {
			t.Errorf("repaired without a pause:\n%s", lines(a))
		}
		time.Sleep(110 * time.Millisecond)
		synctest.Wait()
		if a := k.Applied(); len(a) != 1 {
			t.Errorf("20 events after the pause: %d steps, want 1", len(a))
		}
		if n := r.Status().Repairs; n != 2 {
			t.Errorf("Repairs = %d, want 2", n)
		}
	})
}

func TestAFightIsReportedAndSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := reconciler(t, k)
		set(t, r, oneTunnel())
		time.Sleep(90 * time.Second) // between two resyncs
		k.Applied()

		repairs := 0
		for range 10 * 60 { // a minute
			k.Edit(dropRule)
			time.Sleep(100 * time.Millisecond)
			repairs += len(k.Applied())
			have, _, _ := k.Observe(t.Context(), nil)
			if open := unlocked(have); open != "" {
				t.Fatal(open)
			}
		}
		if repairs < 25 || repairs > 35 {
			t.Errorf("%d repairs in a minute of fighting, want 5 in 10 s", repairs)
		}
		if !slices.Contains(kinds(r.Status()), routing.Fighting) {
			t.Errorf("conditions %v, want %s", r.Status().Conditions, routing.Fighting)
		}
		fights := func(c routing.Condition) bool { return c.Kind == routing.Fighting }
		if i := slices.IndexFunc(r.Status().Conditions, fights); i < 0 || time.Since(r.Status().Conditions[i].Since) < 50*time.Second {
			t.Errorf("conditions %v, want a fight for most of the minute", r.Status().Conditions)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if c := r.Status().Conditions; len(c) != 0 {
			t.Errorf("half a minute of peace later: conditions %v", c)
		}
	})
}

func TestAChangeOfTheHostIsNoFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := reconciler(t, k)
		set(t, r, oneTunnel())
		both := host().Defaults
		for i := range 50 {
			k.Edit(func(_ *routing.State, f *routing.Facts) {
				if f.Defaults = both; i%2 == 0 {
					f.Defaults = nil
				}
			})
			time.Sleep(200 * time.Millisecond)
			have, _, _ := k.Observe(t.Context(), nil)
			noMain := slices.ContainsFunc(have.Rules, func(r routing.Rule) bool { return r.Pref == routing.PrefNoMain })
			if want := i%2 == 0; noMain != want {
				t.Fatalf("flap %d: rule %d is there: %t, want %t", i, routing.PrefNoMain, noMain, want)
			}
		}
		if s := r.Status(); len(s.Conditions) != 0 || s.Repairs != 0 {
			t.Errorf("50 flaps of the uplink: conditions %v, %d repairs", s.Conditions, s.Repairs)
		}
	})
}

func TestAnErrorIsAConditionUntilARetrySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		var accept atomic.Bool
		k.Refuse = func(s routing.Step) error {
			if _, ok := s.(routing.SetLinkUp); ok && !accept.Load() {
				return syscall.EBUSY
			}
			return nil
		}
		r := reconciler(t, k)
		if _, err := r.Set(t.Context(), oneTunnel()); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "ip link set dev wg0 up") {
			t.Errorf("Set: %v, want EBUSY and the command", err)
		}
		time.Sleep(time.Second)
		if got := kinds(r.Status()); !slices.Equal(got, []routing.ConditionKind{routing.ApplyFailed}) {
			t.Errorf("conditions %v, want %s", got, routing.ApplyFailed)
		}
		have, _, _ := k.Observe(t.Context(), nil)
		if open := unlocked(have); open != "" || len(have.Routes) == 0 {
			t.Errorf("the locks: %s, %v", open, have.Routes)
		}
		accept.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := r.Status(); len(s.Conditions) != 0 {
			t.Errorf("conditions after the retry: %v", s.Conditions)
		}
	})
}

func TestAKernelThatKeepsNothingIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := routing.NewReconciler(forgetful{routingtest.New(host())}, slog.New(slog.DiscardHandler))
		if _, err := r.Set(t.Context(), oneTunnel()); !errors.Is(err, routing.ErrUnsettled) {
			t.Errorf("Set: %v, want ErrUnsettled", err)
		}
	})
}

// forgetful accepts every step and makes none.
type forgetful struct{ *routingtest.Kernel }

func (forgetful) Apply(context.Context, []routing.Step) error { return nil }

// Who looks first knows the host before anything runs or is set, and has changed
// nothing.
func TestALookIsKnown(t *testing.T) {
	k := routingtest.New(host())
	r := routing.NewReconciler(k, slog.New(slog.DiscardHandler))
	_, facts, err := r.Look(t.Context())
	if err != nil || len(facts.Own()) == 0 || !reflect.DeepEqual(r.Status().Facts, facts) {
		t.Errorf("seen %+v (%v), known %+v", facts, err, r.Status().Facts)
	}
	if n := len(k.Applied()); n != 0 {
		t.Errorf("%d steps", n)
	}
}

func TestChangedFollowsTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := reconciler(t, k)
		set(t, r, oneTunnel())
		<-r.Changed()
		start := time.Now()
		k.Edit(func(_ *routing.State, f *routing.Facts) {
			f.Links = slices.Clone(f.Links)
			f.Links[1].Addrs = prefixes("198.51.100.7/24")
		})
		<-r.Changed()
		if !slices.Contains(r.Status().Facts.Own(), netip.MustParsePrefix("198.51.100.7/24")) {
			t.Errorf("own addresses %v", r.Status().Facts.Own())
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("known after %s", d)
		}
	})
}

func TestRunEndsWithItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := routingtest.New(host())
		r := routing.NewReconciler(k, slog.New(slog.DiscardHandler))
		k.Close()
		if err := r.Run(t.Context()); err == nil {
			t.Error("Run returned nil although the events ended")
		}
	})
}
