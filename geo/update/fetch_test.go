package update_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/geo/update"
)

// raw answers with bytes that no HTTP server would send, and hangs up.
func raw(t *testing.T, answer []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = c.Write(answer)
		c.Close()
	}
}

func packed(t testing.TB, text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

// (SECURITY U-02)
func TestPartOfAFileIsNoList(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "http://192.168.7.7/list") // TLS says nothing about this, and takes its time
	plain := httptest.NewServer(m.Config.Handler)
	defer plain.Close()
	k.list.Path.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, plain.Listener.Addr().String())
	}
	k.Set([]update.List{k.list})
	old, next := names(100), names(120)
	m.serves("/list", old)
	if r := k.update(false); r.Err != nil {
		t.Fatal(r.Err)
	}
	gz := packed(t, next)
	head := "HTTP/1.1 200 OK\r\nConnection: close\r\n"
	cases := map[string]func(cut int) []byte{
		"content-length": func(cut int) []byte {
			return fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(next), next[:len(next)*cut/256])
		},
		"chunked": func(cut int) []byte {
			part := next[:len(next)*cut/256]
			return fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", head, len(part), part)
		},
		"no length": func(cut int) []byte { return fmt.Appendf(nil, "%s\r\n%s", head, next[:len(next)*cut/256]) },
		"gzip": func(cut int) []byte {
			part := gz[:len(gz)*cut/256]
			return fmt.Appendf(nil, "%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", head, len(part), part)
		},
		"a length that is a lie": func(cut int) []byte { // cut within a line, but for the few at its end
			return fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(strings.TrimRight(next[:len(next)*cut/256], "\n")), next)
		},
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			step := 16
			if name == "content-length" {
				step = 1
			}
			for cut := 0; cut < 256; cut += step {
				m.paths["/list"] = raw(t, answer(cut))
				if r := k.update(false); r.Err == nil || r.Changed {
					t.Errorf("cut at %d/256: %+v", cut, r)
				}
			}
		})
	}
	k.has(old)
	k.left()
	m.paths["/list"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(gz)
	}
	if r := k.update(false); r.Err != nil || !r.Changed {
		t.Errorf("all of it: %+v", r)
	}
	k.has(next)
	if k.swaps != 2 {
		t.Errorf("%d swaps", k.swaps)
	}
}

// (SECURITY U-03)
func TestWhatIsNoListIsRefused(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	good := names(100)
	for _, c := range []struct{ name, body, says string }{
		{"an HTML page", "<!DOCTYPE html><html><body>Not here</body></html>\n", "HTML"},
		{"a JSON error", `{"message":"API rate limit exceeded","documentation_url":"https://example.com"}`, "lines are bad"},
		{"UTF-16", "\xff\xfee\x00x\x00a\x00m\x00p\x00l\x00e\x00.\x00c\x00o\x00m\x00\n\x00", "NUL"},
		{"a NUL", good + "exa\x00mple.com\n", "NUL"},
		{"a line of 1 MB", good + strings.Repeat("a", 1<<20) + "\n", "longer than"},
		{"3 % bad lines", good + "not a name\nneither this\nnor !\n", "at least 98"},
		{"comments alone", "# nothing here\n", "no entries"},
		{"nothing", "", "no entries"},
		{"1 % bad lines", good + "not a name\n", ""},
		{"CRLF", strings.ReplaceAll(good, "\n", "\r\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.serves("/list", c.body)
			before := update.Stored(k.dir, "a").Version.SHA256
			r := k.update(false)
			if c.says == "" {
				if r.Err != nil || r.Entries != 100 {
					t.Errorf("%+v", r)
				}
				return
			}
			errorIs(t, r.Err, c.says)
			if after := update.Stored(k.dir, "a").Version.SHA256; after != before {
				t.Error("the list changed")
			}
		})
	}
	m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://portal.example.org/login", http.StatusFound)
	}
	errorIs(t, k.update(false).Err, "only https is followed")
	k.has(strings.ReplaceAll(good, "\n", "\r\n"))
}

// All but the slow part (SECURITY U-04)
func TestHugeFilesEnd(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	line := bytes.Repeat([]byte("name.example.com\n"), 4096)
	m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errorIs(t, k.update(false).Err, "larger than 32 MiB")
	m.paths["/list"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		gz := gzip.NewWriter(w)
		for range 1000 {
			if _, err := gz.Write(line); err != nil {
				return
			}
		}
		gz.Close()
	}
	errorIs(t, k.update(false).Err, "larger than 32 MiB")
	m.paths["/list"] = raw(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n"))
	errorIs(t, k.update(false).Err, "larger than 32 MiB")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
	k.has("")
	k.left()
}

// A byte a second, and a mirror that never says anything (SECURITY U-04).
func TestSlowMirrorsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(slow bool) func(context.Context, string, string) (net.Conn, error) {
			return func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go func() {
					buf := make([]byte, 4096)
					_, _ = server.Read(buf)
					_, err := io.WriteString(server, map[bool]string{true: "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"}[slow])
					for slow && err == nil {
						time.Sleep(time.Second)
						_, err = server.Write([]byte("a"))
					}
					if !slow {
						_, _ = server.Read(buf) // until the other end hangs up
					}
					server.Close()
				}()
				return client, nil
			}
		}
		for slow, least := range map[bool]time.Duration{true: maxUpdate, false: 10 * time.Second} {
			u := update.New(t.Context(), update.Options{Dir: t.TempDir(), Private: private, Log: slog.New(slog.DiscardHandler)})
			l := update.List{Name: "a", Every: time.Hour, Check: readNames}
			l.URLs = append(l.URLs, parseURL(t, "http://10.9.8.7/list"))
			l.Path = update.Path{Name: "direct", Open: func() bool { return true }, Dial: dial(slow)}
			u.Set([]update.List{l})
			begun := time.Now()
			all, err := u.Update(t.Context(), nil, false)
			if err != nil || all[0].Err == nil {
				t.Errorf("%+v %v", all, err)
			}
			if took := time.Since(begun); took < least || took > maxUpdate {
				t.Errorf("slow %v: it ended after %v with %v", slow, took, all[0].Err)
			}
			time.Sleep(2 * time.Second) // the mirror sees it
		}
	})
}

// maxUpdate is how long an update may take.
const maxUpdate = 60 * time.Second

// (SECURITY U-07)
func TestRedirectsDoNotLeadAstray(t *testing.T) {
	m := newMirror(t)
	m.serves("/good", names(10))
	for _, c := range []struct{ name, to, says string }{
		{"a file", "file:///etc/passwd", "only https is followed"},
		{"this host", "http://127.0.0.1/list", "only https is followed"},
		{"this host by https", "https://127.0.0.1/list", "another host"},
		{"a cloud's metadata", "http://169.254.169.254/latest", "only https is followed"},
		{"a cloud's metadata by https", "https://169.254.169.254/latest", "another host"},
		{"another host", "https://other.example.org/good", "another host"},
		{"a downgrade", "http://example.com/good", "only https is followed"},
		{"a password", "https://me:you@example.com/good", "password"},
		{"a loop", "/list", "more than 3 redirects"},
		{"a place of its own", "/good", ""},
		{"a host of its own", "https://www.example.com/good", ""},
		{"another mirror", "https://mirror.example.com/good", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := keep(t, m, "https://example.com/list", "https://mirror.example.com/none")
			m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, c.to, http.StatusFound) }
			r := k.update(false)
			if c.says == "" {
				if r.Err != nil {
					t.Error(r.Err)
				}
				return
			}
			errorIs(t, r.Err, c.says)
			k.has("")
		})
	}
}

// What a name leads to is looked at, too (SECURITY U-07).
func TestMirrorsAreNotInPrivateNetworks(t *testing.T) {
	for _, c := range []struct {
		url, says string
		addrs     []string
	}{
		{"https://example.com/list", "private address 127.0.0.1", []string{"127.0.0.1"}},
		{"https://example.com/list", "private address 192.168.1.1", []string{"::ffff:192.168.1.1"}},
		{"https://example.com/list", "private address fe80::1", []string{"fe80::1"}},
		{"https://example.com/list", "has no address", nil},
		{"http://192.168.1.1/list", "a connection to 192.168.1.1:80", nil}, // as the user wants
	} {
		m := newMirror(t)
		k := keep(t, m, c.url)
		k.list.Path.Lookup = addressesOf(c.addrs)
		k.Set([]update.List{k.list})
		errorIs(t, k.update(false).Err, c.says)
	}
}

func TestURLsInErrorsKeepSecrets(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/none?license_key=secret")
	r := k.update(false)
	errorIs(t, r.Err, "https://example.com/none: answers 404")
	if strings.Contains(r.Err.Error(), "secret") {
		t.Error(r.Err)
	}
	k.list.URLs[0] = parseURL(t, "https://nowhere.example.com/none?license_key=secret")
	k.Set([]update.List{k.list})
	if r := k.update(false); strings.Contains(r.Err.Error(), "secret") {
		t.Error(r.Err)
	}
}
