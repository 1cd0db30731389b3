package update_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"smartdns/geo/update"
)

// (SECURITY U-05)
func TestListsDoNotShrinkOrGrowAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		next int
		says string
	}{
		{"60 % less", 40, "less than half"},
		{"five times as many", 500, "more than twice"},
		{"empty", 0, "no entries"},
		{"half", 50, ""},
		{"twice", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirror(t)
			k := keep(t, m, "https://example.com/list")
			m.serves("/list", names(100))
			if r := k.update(false); r.Err != nil {
				t.Fatal(r.Err)
			}
			m.serves("/list", names(c.next))
			r := k.update(false)
			if c.says == "" {
				if r.Err != nil || !r.Changed {
					t.Errorf("%+v", r)
				}
				return
			}
			errorIs(t, r.Err, c.says)
			k.has(names(100))
			if s := k.Status()[0].Failure; s.Text == "" || s.Times != 1 || s.Gated != r.Gated {
				t.Errorf("the status says %+v", s)
			}
			if forced := k.update(true); c.next > 0 {
				if !r.Gated || forced.Err != nil || k.Status()[0].Failure.Text != "" {
					t.Errorf("forced: %+v", forced)
				}
				k.has(names(c.next))
			} else if forced.Err == nil || r.Gated {
				t.Error("an empty list was taken")
			}
		})
	}
}

func TestHomeDoesNotMove(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	home := uint64(1_000_000)
	k.list.Check = func(string) (update.Summary, error) {
		return update.Summary{Kind: "prefixes", Entries: 100, Addresses: home}, nil
	}
	k.Set([]update.List{k.list})
	for i, c := range []struct {
		home uint64
		says string
	}{{1_000_000, ""}, {1_049_000, ""}, {1_110_000, "5 %"}, {990_000, "5 %"}, {1_000_000, ""}} {
		home = c.home
		m.serves("/list", strings.Repeat("#", i+1)+"\n")
		if r := k.update(false); c.says != "" {
			errorIs(t, r.Err, c.says)
		} else if r.Err != nil {
			t.Errorf("%d: %v", c.home, r.Err)
		}
	}
}

func signed(t *testing.T, key minisign.PrivateKey, text string, at time.Time) string {
	t.Helper()
	r := minisign.NewReader(strings.NewReader(text))
	if _, err := new(bytes.Buffer).ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return string(r.SignWithComments(key, fmt.Sprintf("timestamp:%d\tfile:list", at.Unix()), "a signature"))
}

// (SECURITY U-08, U-10)
func TestSignedLists(t *testing.T) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	k.list.Proof.Minisign = public.String()
	k.Set([]update.List{k.list})
	day := func(n int) time.Time { return time.Date(2026, 8, n, 0, 0, 0, 0, time.UTC) }
	serve := func(text, signature string) {
		m.serves("/list", text)
		m.serves("/list.minisig", signature)
	}
	old, next := names(10), names(12)

	m.serves("/list", old)
	errorIs(t, k.update(false).Err, "reading the signature at https://example.com/list.minisig: answers 404")
	for says, signature := range map[string]string{
		"no minisign signature":    "not a signature",
		"signed with another key":  signed(t, other, old, day(5)),
		"its signature is wrong":   signed(t, private, next, day(5)),
		"it is no minisign":        "",
		"what lies at .minisig is": signed(t, private, old, day(5))[:60],
	} {
		if says == "it is no minisign" {
			says = "no minisign signature"
		}
		serve(old, signature)
		errorIs(t, k.update(true).Err, says)
	}
	k.has("")
	serve(old, signed(t, private, old, day(5)))
	if r := k.update(false); r.Err != nil {
		t.Fatal(r.Err)
	}
	serve(next, signed(t, private, next, day(6)))
	if r := k.update(false); r.Err != nil {
		t.Fatal(r.Err)
	}
	// The old list is authentic for ever: what makes it old is its date.
	serve(old, signed(t, private, old, day(5)))
	r := k.update(false)
	errorIs(t, r.Err, "an old list")
	k.has(next)
	// Gone back by hand, the newest date still counts for others.
	if r := k.update(true); r.Err != nil || !r.Changed {
		t.Errorf("forced: %+v", r)
	}
	k.has(old)
	// Algorithms of before sign the text itself.
	serve(next, string(minisign.SignWithComments(private, []byte(next), fmt.Sprintf("timestamp:%d", day(7).Unix()), "x")))
	if r := k.update(false); r.Err != nil {
		t.Error(r.Err)
	}
	k.has(next)
}

// Without a signature (SECURITY U-08)
func TestDatedLists(t *testing.T) {
	for name, head := range map[string]func(day int) string{
		"a registry's":  func(day int) string { return fmt.Sprintf("2|apnic|202608%02d|8000|19830613|20260820|+1000\n", day) },
		"a comment":     func(day int) string { return fmt.Sprintf("! Title: x\n! Last Modified: 2026-08-%02d\n", day) },
		"a mail's date": func(day int) string { return fmt.Sprintf("# Last updated: Sat, %02d Aug 2026 10:00:00 +0800\n", day) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t)
			k := keep(t, m, "https://example.com/list")
			k.list.Check = func(string) (update.Summary, error) { return update.Summary{Entries: 9}, nil }
			k.Set([]update.List{k.list})
			for i, c := range []struct {
				day int
				old bool
			}{{10, false}, {12, false}, {11, true}, {12, false}, {13, false}, {10, true}} {
				m.serves("/list", head(c.day)+fmt.Sprintf("name-%d.example.com\n", i))
				if r := k.update(false); c.old {
					errorIs(t, r.Err, "an old list")
				} else if r.Err != nil {
					t.Error(r.Err)
				}
			}
		})
	}
}

// (SECURITY U-10)
func TestChecksums(t *testing.T) {
	text := names(10)
	digest := sha256.Sum256([]byte(text))
	sum := hex.EncodeToString(digest[:])
	wrong := strings.Repeat("0", 64)
	for _, c := range []struct{ name, fixed, file, says string }{
		{"the right digest", strings.ToUpper(sum), "", ""},
		{"another digest", wrong, "", "its SHA-256 is " + sum},
		{"a file with it", "", sum + "  list\n", ""},
		{"a file with several", "", wrong + "  other\n" + sum + " *./dir/list\n", ""},
		{"a file with it alone", "", sum + "\n", ""},
		{"a file with another", "", wrong + "  list\n", "its SHA-256 is " + sum},
		{"a file without it", "", wrong + "  a\n" + sum + "  b\n", `none for "list"`},
		{"no digest at all", "", "<html>", `0 checksums`},
		{"a long file", "", strings.Repeat("#", 70<<10), "longer than 64 KiB"},
		{"no file", "", "", "answers 404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirror(t)
			k := keep(t, m, "https://example.com/list")
			m.serves("/list", text)
			k.list.Proof.SHA256 = c.fixed
			if c.fixed == "" {
				k.list.Proof.SumURL = parseURL(t, "https://sums.example.com/sums")
				k.list.URLs = append(k.list.URLs, parseURL(t, "https://example.com/list?again"))
			}
			if c.file != "" {
				m.paths["/sums"] = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.file) }
			}
			k.Set([]update.List{k.list})
			r := k.update(true)
			if c.says == "" {
				if r.Err != nil {
					t.Error(r.Err)
				}
				return
			}
			errorIs(t, r.Err, c.says)
			k.has("")
			k.left()
		})
	}
}

// A key that is added to the file holds for what was fetched without it, too.
func TestNewProofIsAskedForAtOnce(t *testing.T) {
	m := newMirror(t)
	k := keep(t, m, "https://example.com/list")
	m.serves("/list", names(10))
	if r := k.update(false); r.Err != nil {
		t.Fatal(r.Err)
	}
	if next := k.Status()[0].Next; next.Before(time.Now().Add(20 * time.Hour)) {
		t.Errorf("the next update is at %v", next)
	}
	k.list.Proof.SHA256 = strings.Repeat("0", 64)
	k.Set([]update.List{k.list})
	if next := k.Status()[0].Next; next.After(time.Now()) {
		t.Errorf("the next update is at %v", next)
	}
	errorIs(t, k.update(false).Err, "should be 0000")
}
