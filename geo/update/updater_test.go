package update_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/geo/update"
)

// (SECURITY U-09)
func TestOneUpdateOfAListAtATime(t *testing.T) {
	m := newMirror(t)
	var asked atomic.Int32
	started, goOn := make(chan bool), make(chan bool)
	m.paths["/list"] = func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			close(started)
		}
		<-goOn
		fmt.Fprint(w, names(10))
	}
	k := keep(t, m, "https://example.com/list")
	first := make(chan update.Result)
	go func() { first <- k.update(false) }()
	<-started
	var all sync.WaitGroup
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 19 {
		all.Go(func() {
			if _, err := k.Update(gone, nil, false); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range 5 { // and reloads
		all.Go(func() { k.Set([]update.List{k.list}) })
		all.Go(func() {
			if s := k.Status(); s[0].Progress == nil {
				t.Error("nothing is under way")
			}
		})
		all.Go(func() {
			if _, err := k.Rollback("a"); err == nil {
				t.Error("went back during an update")
			}
		})
	}
	all.Wait()
	close(goOn)
	if r := <-first; r.Err != nil || !r.Changed || asked.Load() != 1 || k.swaps != 1 {
		t.Errorf("%+v; the mirror was asked %d times, %d swaps", r, asked.Load(), k.swaps)
	}
	k.has(names(10))
}

// waits is a context that tells when somebody begins to wait for its end.
type waits struct {
	context.Context
	begun func()
}

func (w waits) Done() <-chan struct{} { w.begun(); return w.Context.Done() }

// Who asks while an update is under way that fails has asked for another one.
func TestAskedWhileAnUpdateFails(t *testing.T) {
	m := newMirror(t)
	var asked atomic.Int32
	started, joined := make(chan bool), make(chan bool)
	m.paths["/list"] = func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			close(started)
			<-joined
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, names(10))
	}
	k := keep(t, m, "https://example.com/list")
	first := make(chan update.Result)
	go func() { first <- k.update(false) }()
	<-started
	all, err := k.Update(waits{t.Context(), sync.OnceFunc(func() { close(joined) })}, nil, false)
	if err != nil || len(all) != 1 || all[0].Err != nil || !all[0].Changed {
		t.Errorf("%+v, %v", all, err)
	}
	if r := <-first; r.Err == nil || asked.Load() != 2 {
		t.Errorf("the one under way: %+v; the mirror was asked %d times", r, asked.Load())
	}
	k.has(names(10))
}

func TestMirrorsInTheirOrder(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://nowhere.example.com/a", "https://example.com/b", "https://example.com/c", "https://example.com/d")
	m.serves("/b", "<html>")
	m.serves("/c", names(10))
	m.serves("/d", names(11))
	if r := k.update(false); r.Err != nil || r.URL != "https://example.com/c" {
		t.Errorf("%+v", r)
	}
	k.has(names(10))
	delete(m.paths, "/c")
	delete(m.paths, "/d")
	r := k.update(false)
	for _, says := range []string{"nowhere.example.com/a: no such name", "/b: line 1: is an HTML page", "/c: answers 404 Not Found", "/d: answers 404"} {
		errorIs(t, r.Err, says)
	}
	k.has(names(10))
}

func TestUnchangedIsAskedForByItsTag(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	m.serves("/list", names(10))
	whole := 0
	inner := m.paths["/list"]
	m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == "" {
			whole++
		}
		inner(w, r)
	}
	for i, want := range []bool{true, false, false} {
		if r := k.update(false); r.Err != nil || r.Changed != want || whole != 1 {
			t.Errorf("%d: %+v, %d whole", i, r, whole)
		}
	}
	k.open(m.roots()) // a restart
	if r := k.update(false); r.Err != nil || r.Changed || whole != 1 {
		t.Errorf("after a restart: %+v, %d whole", r, whole)
	}
	if s := k.Status()[0]; s.Checked.IsZero() || s.Next.Before(time.Now().Add(20*time.Hour)) {
		t.Errorf("%+v", s)
	}
	if r := k.update(true); r.Err != nil || !r.Changed || whole != 2 {
		t.Errorf("forced: %+v, %d whole", r, whole)
	}
}

func TestRollback(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	_, err := k.Rollback("a")
	errorIs(t, err, "no previous version")
	_, err = k.Rollback("b")
	errorIs(t, err, `no list "b"`)
	for n := 10; n < 13; n++ {
		m.serves("/list", names(n))
		if r := k.update(false); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	v, err := k.Rollback("a")
	if err != nil || v.Summary.Entries != 11 || k.swaps != 4 {
		t.Fatal(v, err, k.swaps)
	}
	k.has(names(11))
	if r := k.update(false); r.Err != nil || r.Changed {
		t.Errorf("what somebody went back from was fetched again: %+v", r)
	}
	if s := k.Status()[0]; !s.Failure.Left || !s.Previous {
		t.Errorf("%+v", s)
	}
	k.open(m.roots())
	if r := k.update(false); r.Err != nil || r.Changed {
		t.Errorf("and after a restart: %+v", r)
	}
	// There and back again.
	if v, err := k.Rollback("a"); err != nil || v.Summary.Entries != 12 {
		t.Error(v, err)
	}
	if v, err := k.Rollback("a"); err != nil || v.Summary.Entries != 11 {
		t.Error(v, err)
	}
	m.serves("/list", names(13))
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("a third content: %+v", r)
	}
	k.has(names(13))
}

func TestASwapThatFailsIsTold(t *testing.T) {
	m := newMirror(t)
	m.serves("/list", names(10))
	k := keep(t, m, "https://example.com/list")
	k.Updater = update.New(t.Context(), update.Options{
		Dir: k.dir, Roots: m.roots(), Private: private, Log: slog.New(slog.DiscardHandler),
		Changed: func(context.Context) error { return errors.New("no memory") },
	})
	k.Set([]update.List{k.list})
	r := k.update(false)
	errorIs(t, r.Err, "not in use: no memory")
	if !r.Changed {
		t.Error("it is stored")
	}
}

// The schedule: at once, then every day, sooner after failures, and never while
// the path is closed.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		begun := time.Now()
		open, fails := true, true
		var mu sync.Mutex // guards these
		l := update.List{Name: "a", Every: 24 * time.Hour, Check: readNames}
		l.URLs = append(l.URLs, parseURL(t, "http://10.9.8.7/list"))
		l.Path = update.Path{Name: "wg0", Open: func() bool {
			mu.Lock()
			defer mu.Unlock()
			return open
		}}
		l.Path.Dial = func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if !open {
				t.Error("something was sent while the path was closed")
			}
			tries = append(tries, time.Since(begun).Round(time.Second))
			if fails {
				return nil, errors.New("refused")
			}
			client, server := net.Pipe()
			go func() {
				_, _ = server.Read(make([]byte, 4096))
				fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(names(3)), names(3))
				server.Close()
			}()
			return client, nil
		}
		ctx, stop := context.WithCancel(t.Context())
		u := update.New(ctx, update.Options{
			Dir: t.TempDir(), Private: private, Log: slog.New(slog.DiscardHandler), Changed: func(context.Context) error { return nil },
		})
		u.Set([]update.List{l})
		var run sync.WaitGroup
		run.Go(func() { _ = u.Run(ctx) })
		wait := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		wait(time.Second)
		if len(tries) != 1 || tries[0] != 0 {
			t.Fatalf("tried at %v", tries)
		}
		wait(10 * time.Minute)
		if n := len(tries); n != 5 && n != 6 { // about 30 s, 90 s, 210 s, 450 s
			t.Errorf("failing, tried at %v", tries)
		}
		open, fails = false, false
		wait(48 * time.Hour)
		before := len(tries)
		mu.Unlock()
		waiting := u.Status()[0].Waiting
		mu.Lock()
		if !waiting {
			t.Error("nobody says that it waits")
		}
		open = true
		u.Poke()
		wait(time.Second)
		mu.Unlock()
		now := u.Status()[0]
		mu.Lock()
		if len(tries) != before+1 || now.Copy.Version.Summary.Entries != 3 {
			t.Errorf("open again, tried at %v: %+v", tries, now)
		}
		last := tries[len(tries)-1]
		wait(10 * 24 * time.Hour)
		for _, at := range tries[before+1:] {
			if d := at - last; d < 20*time.Hour || d > 25*time.Hour {
				t.Errorf("every day: %v after the one before", d)
			}
			last = at
		}
		if n := len(tries) - before - 1; n < 9 || n > 12 {
			t.Errorf("%d updates in 10 days", n)
		}
		mu.Unlock()
		stop()
		run.Wait()
	})
}
