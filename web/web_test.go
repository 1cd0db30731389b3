package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"smartdns/web"
	"smartdns/web/api"
)

// source answers with what it was asked.
func source() web.Source {
	return web.Source{
		Status: func(context.Context) (api.Status, error) {
			return api.Status{Schema: api.Schema, Fine: true, Summary: "fine"}, nil
		},
		Query: func(_ context.Context, name, qtype, from string) (api.Decision, error) {
			if name == "" {
				return api.Decision{}, errors.New("no name")
			}
			return api.Decision{Schema: api.Schema, Name: name, Type: qtype, Client: from, RCode: "NOERROR",
				Answers: []api.Address{{Addr: netip.MustParseAddr("2001:db8::1"), Mark: api.Mark{Set: "wg0_6", Life: 3600, Acked: true}}}}, nil
		},
		Route: func(_ context.Context, to, from string) (api.Route, error) {
			return api.Route{Schema: api.Schema, Asked: to, Client: from}, nil
		},
		Marks: func(context.Context) (api.Marks, error) {
			return api.Marks{Schema: api.Schema, Marks: []api.MarkLine{{Addr: netip.MustParseAddr("93.184.216.34"), Path: "wg0", Remaining: 1.5}}}, nil
		},
		Forget: func(_ context.Context, addr string) (api.Done, error) {
			return api.Done{Schema: api.Schema, Text: addr}, nil
		},
		Cache: web.Cache{
			Stats: func(context.Context) (api.Cache, error) { return api.Cache{Schema: api.Schema, Entries: 7}, nil },
			List: func(_ context.Context, s api.CacheSelection, after string, limit int) (api.CacheList, error) {
				return api.CacheList{Schema: api.Schema, Entries: []api.CacheEntry{{Name: s.Suffix, Side: s.Side, Bytes: limit}}, Next: after}, nil
			},
			Flush: func(_ context.Context, s api.CacheSelection) (api.Done, error) {
				return api.Done{Schema: api.Schema, Text: fmt.Sprintf("%+v", s)}, nil
			},
		},
		Verdicts: web.Verdicts{
			List: func(_ context.Context, suffix string) (api.Verdicts, error) {
				return api.Verdicts{Schema: api.Schema, Verdicts: []api.Verdict{{Name: suffix, Region: "home"}}}, nil
			},
			Pin: func(_ context.Context, name, region string) (api.Done, error) {
				return api.Done{Schema: api.Schema, Text: name + " is " + region}, nil
			},
			Forget: func(_ context.Context, name, suffix string) (api.Done, error) {
				return api.Done{Schema: api.Schema, Text: "name " + name + " suffix " + suffix}, nil
			},
		},
		Reload: func(context.Context) (api.Done, error) {
			return api.Done{}, errors.New("smartdns.toml:3: [listen] dns: bad")
		},
	}
}

func serve(t *testing.T) *api.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: web.Handler(source())}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return api.Dial(path)
}

func TestClientGetsWhatTheSourceSays(t *testing.T) {
	c, ctx, src := serve(t), t.Context(), source()
	check := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	status, err := c.Status(ctx)
	wantStatus, _ := src.Status(ctx)
	check("status", status, wantStatus, err)
	d, err := c.Query(ctx, "a&b=c%", "AAAA", "192.0.2.1")
	wantD, _ := src.Query(ctx, "a&b=c%", "AAAA", "192.0.2.1")
	check("query", d, wantD, err)
	r, err := c.Route(ctx, "www.example.com", "192.0.2.1")
	wantR, _ := src.Route(ctx, "www.example.com", "192.0.2.1")
	check("route", r, wantR, err)
	m, err := c.Marks(ctx)
	wantM, _ := src.Marks(ctx)
	check("marks", m, wantM, err)
	f, err := c.Forget(ctx, "93.184.216.34")
	wantF, _ := src.Forget(ctx, "93.184.216.34")
	check("forget", f, wantF, err)
	v, err := c.Verdicts(ctx, "a&b.org")
	wantV, _ := src.Verdicts.List(ctx, "a&b.org")
	check("verdicts", v, wantV, err)
	for _, done := range []struct {
		got  func() (api.Done, error)
		want string
	}{
		{func() (api.Done, error) { return c.Pin(ctx, "a.org", "home") }, "a.org is home"},
		{func() (api.Done, error) { return c.ForgetVerdict(ctx, "a.org") }, "name a.org suffix "},
		{func() (api.Done, error) { return c.ForgetVerdicts(ctx, "org") }, "name  suffix org"},
	} {
		got, err := done.got()
		check("verdicts", got, api.Done{Schema: api.Schema, Text: done.want}, err)
	}
}

func TestCacheOverTheAPI(t *testing.T) {
	c, ctx := serve(t), t.Context()
	if s, err := c.Cache(ctx); err != nil || s.Entries != 7 {
		t.Errorf("stats: %+v, %v", s, err)
	}
	l, err := c.CacheList(ctx, api.CacheSelection{Suffix: "a&b.org", Side: "foreign"}, "00ff", 5)
	if err != nil || len(l.Entries) != 1 || l.Entries[0] != (api.CacheEntry{Name: "a&b.org", Side: "foreign", Bytes: 5}) || l.Next != "00ff" {
		t.Errorf("list: %+v, %v", l, err)
	}
	for _, limit := range []int{0, -1, api.MaxCachePage + 1} {
		if _, err := c.CacheList(ctx, api.CacheSelection{}, "", limit); err == nil {
			t.Errorf("a page of %d entries", limit)
		}
	}
	for _, s := range []api.CacheSelection{{Name: "a.org"}, {Name: "a.org", Side: "x"}, {Suffix: "org"}, {Side: "x"}, {All: true}} {
		if d, err := c.FlushCache(ctx, s); err != nil || d.Text != fmt.Sprintf("%+v", s) {
			t.Errorf("flush %+v: %+v, %v", s, d, err)
		}
	}
	for _, s := range []api.CacheSelection{{}, {Name: "a.org", Suffix: "org"}, {Name: "a.org", All: true}} {
		if d, err := c.FlushCache(ctx, s); err == nil {
			t.Errorf("flush %+v: %+v", s, d)
		}
	}
}

func TestErrorsAreTheDaemonsSentences(t *testing.T) {
	c := serve(t)
	if _, err := c.Reload(t.Context()); err == nil || err.Error() != "smartdns.toml:3: [listen] dns: bad" {
		t.Errorf("reload: %v", err)
	}
	if _, err := api.Dial(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context()); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}

// What changes something cannot be reached by a link or an image of a page, and
// no request is read without end.
func TestHandlerRefuses(t *testing.T) {
	h := web.Handler(source())
	for _, r := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/v1/reload", "", http.StatusMethodNotAllowed},
		{"GET", "/v1/marks/forget?addr=1.2.3.4", "", http.StatusMethodNotAllowed},
		{"GET", "/v1/query?name=a", "", http.StatusMethodNotAllowed},
		{"GET", "/v1/verdicts/forget?suffix=.", "", http.StatusMethodNotAllowed},
		{"POST", "/v1/verdicts/forget", "", http.StatusBadRequest},
		{"POST", "/v1/verdicts/forget", "name=a.org&suffix=org", http.StatusBadRequest},
		{"POST", "/v1/status", "", http.StatusMethodNotAllowed},
		{"GET", "/", "", http.StatusNotFound},
		{"GET", "/debug/pprof/", "", http.StatusNotFound},
		{"POST", "/v1/query?name=in-the-url", "", http.StatusUnprocessableEntity},
		{"POST", "/v1/query", "name=" + strings.Repeat("x", 8<<10), http.StatusUnprocessableEntity},
	} {
		req := httptest.NewRequest(r.method, r.path, strings.NewReader(r.body))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if b, _ := io.ReadAll(w.Body); w.Code != r.want {
			t.Errorf("%s %s: %d %s, want %d", r.method, r.path, w.Code, b, r.want)
		}
	}
}
