package update_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/geo/update"
	"smartdns/internal/wholefile"
)

// Killed between the record and the content, the new content is fetched all the
// same: the mirror is not asked whether what never came has changed.
func TestUpdateKilledBeforeItsContentIsDoneAgain(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	for _, n := range []int{10, 11} {
		m.serves("/list", names(n))
		if r := k.update(false); r.Err != nil || !r.Changed {
			t.Fatalf("%+v", r)
		}
	}
	killed := func() {
		if err := wholefile.ReplaceBytes(filepath.Join(k.dir, "a", "list"), []byte(names(10))); err != nil {
			t.Fatal(err)
		}
	}
	killed()
	k.open(m.roots()) // a start
	k.has(names(10))
	if s := k.Status()[0]; s.Next.After(time.Now()) || s.Copy.Problem+s.Failure.Problem != "" {
		t.Errorf("it is not due: %+v", s)
	}
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("%+v", r)
	}
	k.has(names(11))
	killed() // the same without a start: a rename that failed
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("%+v", r)
	}
	k.has(names(11))
}

// A full disk, on which not even the record can be written, is told, and is no
// reason to ask the mirror without a pause.
func TestWhatCannotBeWrittenWaits(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	m.serves("/list", names(10))
	in := filepath.Join(wholefile.Temporary(filepath.Join(k.dir, "a", "record.json")), "x")
	if err := os.MkdirAll(in, 0o700); err != nil {
		t.Fatal(err)
	}
	var waited time.Duration
	for i := 1; i <= 3; i++ {
		errorIs(t, k.update(false).Err, "record.json")
		s := k.Status()[0]
		if s.Failure.Times != i || s.Failure.Text == "" || s.Next.Sub(s.Tried) <= waited {
			t.Errorf("after %d failures the status says %+v", i, s)
		}
		waited = s.Next.Sub(s.Tried)
	}
	k.has("")
	if err := os.RemoveAll(filepath.Dir(in)); err != nil {
		t.Fatal(err)
	}
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("with room again: %+v", r)
	}
	if s := k.Status()[0]; s.Failure != (update.Failure{}) {
		t.Errorf("with room again: %+v", s)
	}
	k.has(names(10))
}

// A list that leaves the file during its update and comes back is not updated
// by two at a time, who would write the same file.
func TestListThatComesBackDuringItsUpdate(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	var asked atomic.Int32
	started, goOn := make(chan bool), make(chan bool)
	m.paths["/list"] = func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			close(started)
		}
		<-goOn
		_, _ = w.Write([]byte(names(10)))
	}
	first := make(chan update.Result)
	go func() { first <- k.update(false) }()
	<-started
	k.Set(nil)
	k.Set([]update.List{k.list})
	if k.Status()[0].Progress == nil {
		t.Error("nobody knows of the update that is under way")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = k.Update(gone, nil, false)
	close(goOn)
	if r := <-first; r.Err != nil || !r.Changed || asked.Load() != 1 {
		t.Errorf("%+v; the mirror was asked %d times", r, asked.Load())
	}
	k.has(names(10))
}

func TestRedirectsDoNotTellTheQuery(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list?token=secret")
	m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://files.example.com/other", http.StatusFound)
	}
	m.paths["/other"] = func(w http.ResponseWriter, r *http.Request) {
		if from := r.Header.Get("Referer"); from != "" {
			t.Errorf("the other host was told of %s", from)
		}
		_, _ = w.Write([]byte(names(10)))
	}
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("%+v", r)
	}
}
