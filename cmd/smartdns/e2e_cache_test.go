package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/web/api"
)

func (w *world) cacheStats() api.Cache {
	w.t.Helper()
	out, err := w.cli("cache", "--json")
	var c api.Cache
	if err != nil {
		w.t.Fatalf("smartdns cache: %v\n%s", err, out)
	}
	decode(w.t, out, &c)
	return c
}

func (w *world) cacheList(args ...string) api.CacheList {
	w.t.Helper()
	out, err := w.cli(append([]string{"cache", "list", "--json"}, args...)...)
	var l api.CacheList
	if err != nil {
		w.t.Fatalf("smartdns cache list: %v\n%s", err, out)
	}
	decode(w.t, out, &l)
	return l
}

// The cache is there again after a stop and after SIGKILL, each address is
// marked before its cached answer arrives, and a file that is damaged is only a
// condition.
func TestCacheOverARestart(t *testing.T) {
	w := marksWorld(t)
	const name = "n00007.foreign.test"
	to := w.resolve(name, 0)
	asked := len(w.DNS.Asked(name))
	again := func(about string) {
		t.Helper()
		// Only its mark leads it into the tunnel, and nothing has asked since.
		if got := w.resolve(name, 0); got != to || len(w.DNS.Asked(name)) != asked {
			t.Errorf("%s: %s, before %s; asked %d times, before %d", about, got, to, len(w.DNS.Asked(name)), asked)
		}
		if err := w.carries(w.Client, to, "tunnel", 0); err != nil {
			t.Errorf("%s: %v", about, err)
		}
	}
	w.stop()
	w.start()
	w.waitUp()
	again("after a stop")
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.waitUp()
	again("after SIGKILL")

	out, err := w.cli("query", name, "--json")
	var d api.Decision
	if err != nil || json.Unmarshal([]byte(out), &d) != nil || d.Cached != "fresh" && d.Cached != "sealed" || d.Age <= 0 {
		t.Errorf("the decision does not say that it was cached, and how old it is: %v\n%s", err, out)
	}
	if l := w.cacheList(name); len(l.Entries) == 0 || l.Entries[0].Name != name {
		t.Errorf("list: %+v", l)
	}
	if s := w.cacheStats(); s.Entries == 0 || s.Bytes > s.Capacity || s.Hits == 0 {
		t.Errorf("stats: %+v", s)
	}
	// A flush reaches the fast lane too.
	w.resolve(name, 0)
	if out, err := w.cli("cache", "flush", name); err != nil || !strings.HasPrefix(out, "forgot") {
		t.Errorf("flush: %v\n%s", err, out)
	}
	w.resolve(name, 0)
	if n := len(w.DNS.Asked(name)); n <= asked {
		t.Errorf("asked %d times after a flush, before %d", n, asked)
	}
	if out, err := w.cli("cache", "flush", "--side", "nobody"); err == nil || !strings.Contains(err.Error()+out, "there are") {
		t.Errorf("flush of a side that is not there: %v\n%s", err, out)
	}
	if out, err := w.cli("cache", "flush", "--all"); err != nil || w.cacheStats().Entries != 0 {
		t.Errorf("flush --all: %v\n%s", err, out)
	}
	w.stop()
	if err := os.WriteFile(filepath.Join(w.Gateway.StateDir(), "cache"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	if s := w.status(); !strings.Contains(conditionsText(s), "cache.corrupt") {
		t.Errorf("nobody is told of the damaged file: %s", conditionsText(s))
	}
	w.noLeaks()
}
