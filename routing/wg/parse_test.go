package wg_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/routing/wg"
)

const testdata = "../../testdata/wg"

func parse(t testing.TB, text string) *wg.Config {
	t.Helper()
	c, err := wg.Parse(strings.NewReader(text), "wg0.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// describe prints all that a Config says.
func describe(c *wg.Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "interface key %s port %d mtu %d\n", c.PrivateKey.PublicKey().Short(), c.ListenPort, c.MTU)
	fmt.Fprintf(&b, "address %v\ndns %v search %v\n", c.Addresses, c.DNS, c.Search)
	fmt.Fprintf(&b, "quick table %q fwmark %#x save %v\n", c.Quick.Table, c.Quick.FwMark, c.Quick.SaveConfig)
	for _, h := range c.Quick.Hooks {
		fmt.Fprintf(&b, "hook %s line %d %v\n", h.Key, h.Line, h.Command)
	}
	main, _ := c.Main()
	for _, p := range c.Peers {
		fmt.Fprintf(&b, "peer line %d key %s psk %v endpoint %q name %v keepalive %v main %v\n",
			p.Line, p.PublicKey.Short(), !p.PresharedKey.IsZero(), p.Endpoint, p.Endpoint.IsName(), p.Keepalive, p.PublicKey == main.PublicKey)
		fmt.Fprintf(&b, "  allowed %v\n", p.AllowedIPs)
	}
	for _, n := range c.Notes() {
		fmt.Fprintf(&b, "note %s\n", n)
	}
	return b.String()
}

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldens(t *testing.T) {
	files, err := filepath.Glob(testdata + "/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files (%v)", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var got string
			if c, err := wg.Parse(f, filepath.Base(file)); err != nil {
				got = err.Error() + "\n"
			} else {
				got = describe(c)
			}
			golden := strings.TrimSuffix(file, ".conf") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"UTF-16":        {"\xff\xfe[\x00", "x.conf: is UTF-16; save it as UTF-8"},
		"a binary":      {"\x7fELF\x00", "x.conf: is not a text file"},
		"an empty file": {"", "x.conf: has no [Interface]: is it a wg-quick file?"},
		"far too long":  {strings.Repeat("#\n", 3<<20), "x.conf: too long for a wg-quick file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := wg.Parse(strings.NewReader(c.text), "x.conf")
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func key(t testing.TB) string {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// shows reports whether text holds a key, in any of its usual forms.
func shows(text, key string) bool {
	raw, _ := base64.StdEncoding.DecodeString(key)
	return strings.Contains(text, key) || strings.Contains(text, key[:30]) ||
		strings.Contains(text, hex.EncodeToString(raw)) || strings.Contains(text, fmt.Sprintf("%d", raw)[1:60]) ||
		strings.Contains(text, strings.Trim(fmt.Sprintf("%#v", [32]byte(raw)), "[32]uint8{}"))
}

func TestNothingPrintsASecret(t *testing.T) { // SECURITY W-09
	private, psk, hook := key(t), key(t), key(t)
	c := parse(t, "[Interface]\nPrivateKey="+private+"\nPostUp=wg set %i private-key "+hook+
		"\n[Peer]\nPublicKey="+key(t)+"\nPresharedKey="+psk+"\nAllowedIPs=::/0\n")
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.PrivateKey)
		fmt.Fprintf(&out, verb+"\n", c.Peers)
		fmt.Fprintf(&out, verb+"\n", c.Quick.Hooks)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("config", "c", c, "key", c.PrivateKey, "peers", c.Peers, "hooks", c.Quick.Hooks)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, describe(c))
	for name, k := range map[string]string{"private key": private, "preshared key": psk, "hook": hook} {
		if shows(out.String(), k) {
			t.Errorf("the %s is in the output", name)
		}
	}
}

func TestNoErrorQuotesASecret(t *testing.T) { // SECURITY W-09
	secret := key(t)
	for _, line := range []string{
		"PrivateKey = %sx", "PrivateKey = x%s", "PrivateKey : %s", "%s", "%s = 1", "Private %s = 1",
		"Address = %s", "DNS = %s", "MTU = %s", "ListenPort = %s", "FwMark = %s", "Table = %s", "SaveConfig = %s",
		"[%s]", "[Peer]\nPublicKey = %s=", "[Peer]\nAllowedIPs = 10.0.0.0/8, %s", "[Peer]\nEndpoint = %s",
		"[Peer]\nEndpoint = %s:51820", "[Peer]\nEndpoint = [%s]:51820", "[Peer]\nEndpoint = a:%s",
		"[Peer]\nPersistentKeepalive = %s", "[Peer]\nPresharedKey = %s %[1]s", "[Peer]\nPrivateKey = %s",
	} {
		_, err := wg.Parse(strings.NewReader("[Interface]\n"+fmt.Sprintf(line, secret)), "wg0.conf")
		if err == nil {
			t.Errorf("%q is accepted", line)
		} else if shows(err.Error(), secret) {
			t.Errorf("%q: the error quotes the key", line)
		}
	}
}

func TestErrorsAreLocated(t *testing.T) {
	_, err := wg.Parse(strings.NewReader("[Interface]\nPrivateKey = "+key(t)+"\n[Peer]\nPublicKey = "+key(t)+"\nAllowedIPs = 10.0.0.0/40\n"), "wg0.conf")
	e, ok := errors.AsType[*wg.Error](err)
	if !ok || e.Line != 5 || e.Section != "Peer" || e.Key != "AllowedIPs" {
		t.Errorf("got %#v", e)
	}
	if err == nil || !strings.HasPrefix(err.Error(), `wg0.conf:5: [Peer] AllowedIPs: "10.0.0.0/40"`) {
		t.Errorf("got %v", err)
	}
}

func TestFileModes(t *testing.T) { // SECURITY W-08
	text := "[Interface]\nPrivateKey = " + key(t) + "\n"
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true, 0o640: false, 0o604: false, 0o644: false, 0o620: false, 0o601: false, 0o777: false,
	} {
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "my wg0.conf")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(t.TempDir(), "wg0.conf")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			_, err := wg.ParseFile(path)
			if ok != (err == nil) {
				t.Errorf("got %v", err)
			}
			if want := "chmod 600 '" + path + "'"; !ok && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to name: %s", err, want)
			}
			if _, err := wg.ParseFile(link); ok != (err == nil) {
				t.Errorf("through a symlink: %v", err)
			}
		})
	}
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := wg.ParseFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := wg.ParseFile(dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := wg.ParseFile(fifo); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob(testdata + "/*.conf")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := wg.Parse(bytes.NewReader(data), "f")
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("an error without a place: %q", line)
				}
			}
			return
		}
		if c.PrivateKey.IsZero() {
			t.Fatal("no private key, and no error")
		}
		for _, k := range keyText.FindAllString(fmt.Sprintf("%+v %v", c, c.Notes()), -1) {
			if raw, err := base64.StdEncoding.DecodeString(k); err == nil && publicOf(t, raw) == c.PrivateKey.PublicKey() {
				t.Fatal("the private key is printed")
			}
		}
		seen := map[string]bool{}
		for _, p := range c.Peers {
			for _, a := range p.AllowedIPs {
				if a != a.Masked() || seen[a.String()] {
					t.Fatalf("prefix %v is not masked, or twice", a)
				}
				seen[a.String()] = true
			}
			if _, literal := p.Endpoint.Literal(); literal == p.Endpoint.IsName() && p.Endpoint.Host != "" {
				t.Fatalf("endpoint %q is both an address and a name, or neither", p.Endpoint)
			}
		}
	})
}

var keyText = regexp.MustCompile(`[A-Za-z0-9+/]{43}=`)

func publicOf(t *testing.T, raw []byte) wg.PublicKey {
	k, err := ecdh.X25519().NewPrivateKey(raw)
	must(t, err)
	return wg.PublicKey(k.PublicKey().Bytes())
}

func TestPeersOfBothFamiliesAreNoted(t *testing.T) {
	four, six := "Endpoint=198.51.100.2:51820\n", "Endpoint=[2001:db8::2]:51820\n"
	for _, c := range []struct {
		endpoints []string
		want      int
	}{{[]string{four, six}, 1}, {[]string{six, four, six}, 2}, {[]string{six, six}, 0}, {[]string{four, "Endpoint=vpn.example.com:1\n"}, 0}} {
		text := "[Interface]\nPrivateKey=" + key(t) + "\nAddress=10.9.0.2/32\n"
		for _, e := range c.endpoints {
			text += "[Peer]\nPublicKey=" + public(t, key(t)) + "\n" + e
		}
		n := 0
		for _, note := range parse(t, text).Notes() {
			if strings.Contains(note.Text, "wireguard-go#135") {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%q: %d notes, want %d", c.endpoints, n, c.want)
		}
	}
}
