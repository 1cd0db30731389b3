package update_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"smartdns/geo/update"
)

// (SECURITY U-01): the states of dnscrypt-proxy's sources_test.go, on disk and at the
// mirror. There the signature is the second file; here, on disk, the record is.
func TestStatesOfWhatIsStored(t *testing.T) {
	old, next := names(20), names(22)
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	change := func(path string, by func([]byte) []byte) {
		b, err := os.ReadFile(path)
		must(err)
		must(os.WriteFile(path, by(b), 0o600))
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	loop := func(path string) { must(os.RemoveAll(path)); must(os.Symlink(path, path)) }
	directory := func(path string) { must(os.RemoveAll(path)); must(os.MkdirAll(filepath.Join(path, "x"), 0o700)) }

	start := func(t *testing.T) (*mirror, *keeper) {
		m := newMirror(t)
		k := keep(t, m, "https://example.com/list")
		k.list.Proof.Minisign = public.String()
		k.Set([]update.List{k.list})
		m.serves("/list", old)
		m.serves("/list.minisig", signed(t, private, old, day))
		if r := k.update(false); r.Err != nil {
			t.Fatal(r.Err)
		}
		return m, k
	}
	offers := func(t *testing.T, m *mirror) { // what is better
		m.serves("/list", next)
		m.serves("/list.minisig", signed(t, private, next, day.Add(time.Hour)))
	}

	for _, c := range []struct {
		name    string
		damage  func(list, record string)
		has     string // in use at the start, without a mirror
		problem bool   // somebody is told
	}{
		{"correct", func(string, string) {}, old, false},
		{"expired", func(_, record string) {
			change(record, func(b []byte) []byte {
				return []byte(strings.ReplaceAll(string(b), fmt.Sprintf(`"checked": "%d-`, time.Now().Year()), `"checked": "2001-`))
			})
		}, old, false},
		{"partial", func(list, _ string) { change(list, half) }, "", true},
		{"partial-sig", func(_, record string) { change(record, half) }, old, true},
		{"missing", func(list, _ string) { must(os.Remove(list)) }, "", true},
		{"missing-sig", func(_, record string) { must(os.Remove(record)) }, old, false},
		{"read-err", func(list, _ string) { directory(list) }, "", true},
		{"read-sig-err", func(_, record string) { directory(record) }, old, true},
		{"open-err", func(list, _ string) { loop(list) }, "", true},
		{"open-sig-err", func(_, record string) { loop(record) }, old, true},
		{"path-err", func(list, _ string) {
			must(os.RemoveAll(filepath.Dir(list)))
			must(os.WriteFile(filepath.Dir(list), nil, 0o600))
		}, "", true},
	} {
		for _, previous := range []bool{false, true} {
			t.Run(fmt.Sprintf("cache %s, previous %v", c.name, previous), func(t *testing.T) {
				m, k := start(t)
				has := c.has
				if previous {
					m.serves("/list", names(21))
					m.serves("/list.minisig", signed(t, private, names(21), day.Add(time.Minute)))
					if r := k.update(false); r.Err != nil {
						t.Fatal(r.Err)
					}
					switch {
					case has != "":
						has = names(21)
					case c.name != "path-err":
						has = old // a good one existed
					}
				}
				dir := filepath.Join(k.dir, "a")
				c.damage(filepath.Join(dir, "list"), filepath.Join(dir, "record.json"))
				k.has(has) // what a start finds
				k.open(m.roots())
				k.has(has) // and what is there after it has mended that
				s := k.Status()[0]
				if told := s.Failure.Problem + s.Copy.Problem; (told != "") != c.problem {
					t.Errorf("the status says %q", told)
				}
				if due := !s.Next.After(time.Now()); due == (c.name == "correct") {
					t.Errorf("the next update is at %v", s.Next)
				}
				offers(t, m)
				r := k.update(false)
				if c.name == "path-err" {
					errorIs(t, r.Err, "not a directory")
					return
				}
				if r.Err != nil || !r.Changed {
					t.Errorf("%+v", r)
				}
				k.has(next)
				if s := k.Status()[0]; s.Failure != (update.Failure{}) || s.Copy.Problem != "" {
					t.Errorf("mended, the status says %+v %q", s.Failure, s.Copy.Problem)
				}
			})
		}
	}

	for _, c := range []struct {
		name  string
		serve func(m *mirror, sig string)
		says  string
	}{
		{"correct", func(*mirror, string) {}, ""},
		{"expired", func(m *mirror, _ string) {
			m.serves("/list.minisig", signed(t, private, next, day.Add(-time.Hour)))
		}, "an old list"},
		{"partial", func(m *mirror, _ string) { m.serves("/list", next[:len(next)*3/4]) }, "signature is wrong"},
		{"partial-sig", func(m *mirror, sig string) { m.serves("/list.minisig", sig[:len(sig)/2]) }, "no minisign signature"},
		{"missing", func(m *mirror, _ string) { delete(m.paths, "/list") }, "answers 404"},
		{"missing-sig", func(m *mirror, _ string) { delete(m.paths, "/list.minisig") }, "answers 404"},
		{"read-err", func(m *mirror, _ string) {
			m.paths["/list"] = raw(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nname.example"))
		}, "unexpected EOF"},
		{"read-sig-err", func(m *mirror, _ string) {
			m.paths["/list.minisig"] = raw(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nuntrusted"))
		}, "unexpected EOF"},
		{"open-err", func(m *mirror, _ string) { m.paths["/list"] = raw(t, nil) }, "EOF"},
		{"open-sig-err", func(m *mirror, _ string) { m.paths["/list.minisig"] = raw(t, nil) }, "EOF"},
		{"path-err", func(m *mirror, _ string) {
			m.paths["/list"] = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://nowhere.example.com/list", http.StatusFound)
			}
		}, "no such name"},
	} {
		t.Run("download "+c.name, func(t *testing.T) {
			m, k := start(t)
			offers(t, m)
			c.serve(m, signed(t, private, next, day.Add(time.Hour)))
			r := k.update(false)
			if c.says == "" {
				if r.Err != nil {
					t.Error(r.Err)
				}
				k.has(next)
				return
			}
			errorIs(t, r.Err, c.says)
			k.has(old)
			k.left()
			offers(t, m)
			if r := k.update(false); r.Err != nil || !r.Changed {
				t.Errorf("well again: %+v", r)
			}
			k.has(next)
		})
	}
}

// Another program's or version's record is not read, and nothing is lost.
func TestRecordOfALaterVersion(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	m.serves("/list", names(10))
	if r := k.update(false); r.Err != nil {
		t.Fatal(r.Err)
	}
	path := filepath.Join(k.dir, "a", "record.json")
	if err := os.WriteFile(path, []byte(`{"schema": 2, "versions": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	k.open(m.roots())
	k.has(names(10))
	if b, err := os.ReadFile(path + ".corrupt"); err != nil || !strings.Contains(string(b), `"schema": 2`) {
		t.Error(string(b), err)
	}
}
