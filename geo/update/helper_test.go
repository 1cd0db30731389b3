package update_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/geo/update"
)

// mirror is an HTTPS server that is known as example.com, and what it does with
// each path.
type mirror struct {
	*httptest.Server
	paths map[string]http.HandlerFunc
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{paths: map[string]http.HandlerFunc{}}
	m.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := m.paths[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	m.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	m.StartTLS()
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) roots() *x509.CertPool {
	return m.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
}

// path leads every name to the server, by an address on the Internet.
func (m *mirror) path() update.Path {
	return update.Path{
		Name: "direct", Open: func() bool { return true },
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "nowhere.example.com" {
				return nil, errors.New("no such name")
			}
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, nil
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(address); host != "93.184.216.34" {
				return nil, fmt.Errorf("a connection to %s", address)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, m.Listener.Addr().String())
		},
	}
}

// serves makes the mirror have a text at a path, with an ETag of its own.
func (m *mirror) serves(path, text string) {
	m.paths[path] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, crc32.ChecksumIEEE([]byte(text))))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}
}

// names is a list of so many names.
func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "name-%d.example.com\n", i)
	}
	return b.String()
}

// readNames reads a list of names as the daemon does.
func readNames(path string) (update.Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return update.Summary{}, err
	}
	defer f.Close()
	var tally list.Tally
	for _, err := range tally.Watch(list.Names(f)) {
		if err != nil {
			return update.Summary{}, err
		}
	}
	return update.Summary{Kind: "names", Entries: tally.Used}, nil
}

func private(a netip.Addr) bool {
	kind, _ := geo.Special(a)
	return kind != geo.NotSpecial
}

// keeper is an Updater of one list of names, its directory and its mirror.
type keeper struct {
	t    *testing.T
	dir  string
	list update.List
	*update.Updater
	swaps int
}

func parseURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func keep(t *testing.T, m *mirror, urls ...string) *keeper {
	t.Helper()
	k := &keeper{t: t, dir: t.TempDir(), list: update.List{Name: "a", Every: 24 * time.Hour, Path: m.path(), Check: readNames}}
	for _, text := range urls {
		k.list.URLs = append(k.list.URLs, parseURL(t, text))
	}
	k.open(m.roots())
	return k
}

// open makes an Updater as a start does.
func (k *keeper) open(roots *x509.CertPool) {
	k.Updater = update.New(k.t.Context(), update.Options{
		Dir: k.dir, Roots: roots, Private: private, Log: slog.New(slog.DiscardHandler),
		Changed: func(context.Context) error { k.swaps++; return nil },
	})
	k.Set([]update.List{k.list})
}

// update asks for the list now.
func (k *keeper) update(force bool) update.Result {
	k.t.Helper()
	all, err := k.Update(k.t.Context(), nil, force)
	if err != nil || len(all) != 1 {
		k.t.Fatal(all, err)
	}
	return all[0]
}

// has checks what is in use of the list, "" for nothing.
func (k *keeper) has(want string) {
	k.t.Helper()
	c := update.Stored(k.dir, "a")
	got := []byte{}
	if c.Path != "" {
		var err error
		if got, err = os.ReadFile(c.Path); err != nil {
			k.t.Fatal(err)
		}
	}
	if string(got) != want {
		k.t.Errorf("the list has %d bytes in use, want %d (%q)", len(got), len(want), c.Problem)
	}
}

// left checks that nothing lies about that was not finished.
func (k *keeper) left() {
	k.t.Helper()
	entries, _ := os.ReadDir(filepath.Join(k.dir, "a"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			k.t.Errorf("%s is left", e.Name())
		}
	}
}

func errorIs(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("the error is %v, want one with %q", err, says)
	}
}

func addressesOf(texts []string) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) {
		var all []netip.Addr
		for _, s := range texts {
			all = append(all, netip.MustParseAddr(s))
		}
		return all, nil
	}
}
