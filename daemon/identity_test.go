package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/configs"
	"smartdns/routing"
)

func newTestIdentity(t *testing.T) *identity {
	return newIdentity(Options{Dirs: Dirs{State: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
}

func listeners(addrs ...string) (all []netip.AddrPort) {
	for _, a := range addrs {
		all = append(all, netip.MustParseAddrPort(a))
	}
	return all
}

func leafOf(t *testing.T, i *identity) *x509.Certificate {
	t.Helper()
	c, err := i.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func ownParts() *Parts { return &Parts{Config: configs.Default()} }

func TestOwnCertificateKeepsItsPin(t *testing.T) {
	i := newTestIdentity(t)
	i.use(ownParts(), listeners("192.168.8.1:853", "[fd00:8::1]:443"), routing.Facts{})
	first := leafOf(t, i)
	for _, name := range []string{"192.168.8.1", "fd00:8::1", hostName()} {
		if err := first.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(i.own)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v; want mode 0600", i.own, info, err)
	}
	again := newIdentity(Options{Dirs: Dirs{State: filepath.Dir(i.own)}, Log: i.log})
	again.use(ownParts(), listeners("192.168.8.1:853", "[fd00:8::1]:443"), routing.Facts{})
	if !leafOf(t, again).Equal(first) {
		t.Error("a restart made a new certificate")
	}
	facts := routing.Facts{Links: []routing.Iface{{Link: routing.Link{Name: "br-lan"}, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.9.1/24")}}}}
	again.use(ownParts(), listeners("0.0.0.0:853"), facts)
	moved := leafOf(t, again)
	if err := moved.VerifyHostname("192.168.9.1"); err != nil {
		t.Errorf("a wildcard has the addresses of the host: %v", err)
	}
	if pinOf(moved) != pinOf(first) || again.status().Pin != pinOf(first) {
		t.Error("another address changed the pin")
	}
	if s := again.status(); !s.Own || !slices.Contains(s.Names, "192.168.9.1") {
		t.Errorf("%+v", s)
	}
	if again.use(ownParts(), nil, facts); again.status() != nil {
		t.Error("a certificate is shown where nothing listens")
	}
}

func TestOwnCertificateIsRenewedInTime(t *testing.T) {
	i := newTestIdentity(t)
	synctest.Test(t, func(t *testing.T) {
		i.use(ownParts(), listeners("192.168.8.1:853"), routing.Facts{})
		first := leafOf(t, i)
		time.Sleep(ownLife - ownRenew - time.Hour)
		if !leafOf(t, i).Equal(first) {
			t.Error("renewed a month and an hour before its end")
		}
		time.Sleep(2 * time.Hour)
		renewed := leafOf(t, i)
		if renewed.Equal(first) || pinOf(renewed) != pinOf(first) || time.Until(renewed.NotAfter) < ownLife-time.Hour {
			t.Errorf("until %s, the first until %s", renewed.NotAfter, first.NotAfter)
		}
	})
}

func TestBrokenOwnCertificateIsSetAside(t *testing.T) {
	i := newTestIdentity(t)
	if err := os.WriteFile(i.own, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	i.use(ownParts(), listeners("192.168.8.1:853"), routing.Facts{})
	leafOf(t, i)
	if _, err := os.Stat(i.own + ".corrupt"); err != nil || i.problem() != nil {
		t.Error(err, i.problem())
	}
}

// writePair writes a new pair, for a host of this name.
func writePair(t *testing.T, dir, host string) (cert, key string) {
	t.Helper()
	made, err := ownCertificate(filepath.Join(t.TempDir(), "pair"), host, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "dns.crt"), filepath.Join(dir, "dns.key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: made.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// touch makes sure that a file is seen to be another one.
func touch(t *testing.T, by time.Duration, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Chtimes(f, time.Time{}, time.Now().Add(by)); err != nil {
			t.Fatal(err)
		}
	}
}

func pairParts(t *testing.T, cert, key string) (*Parts, error) {
	t.Helper()
	c, err := configs.Parse(strings.NewReader("[listen]\ndot = [\"127.0.0.1\"]\ncert = \""+cert+"\"\nkey = \""+key+"\"\n"), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	return Compile(c)
}

func TestCertificateFilesAreReadWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one.example")
	parts, err := pairParts(t, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	i := newTestIdentity(t)
	i.use(parts, listeners("127.0.0.1:853"), routing.Facts{})
	shows := func(host string) {
		t.Helper()
		if err := leafOf(t, i).VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	shows("one.example")
	writePair(t, dir, "two.example")
	touch(t, time.Second, cert, key)
	shows("two.example")
	if i.use(parts, listeners("127.0.0.1:853"), routing.Facts{}); i.status().Own {
		t.Error("the files' certificate is called our own")
	}
	shows("two.example")
	if err := os.WriteFile(cert, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, 2*time.Second, cert)
	shows("two.example")
	if err := i.problem(); err == nil || !strings.Contains(err.Error(), "still shown") {
		t.Errorf("nothing is said of a file that went bad: %v", err)
	}
	writePair(t, dir, "three.example")
	touch(t, 3*time.Second, cert, key)
	shows("three.example")
	if err := i.problem(); err != nil {
		t.Error(err)
	}
}

func TestBadCertificateFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one.example")
	_, other := writePair(t, t.TempDir(), "one.example")
	open := filepath.Join(dir, "open.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string][2]string{
		"no such file":               {cert, dir + "/none.key"},
		"private key does not match": {cert, other},
		"chmod 600":                  {cert, open},
		"failed to find":             {key, key},
	} {
		_, err := pairParts(t, files[0], files[1])
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "smartdns.toml: [listen] ") {
			t.Errorf("%v; want %q, with its place", err, want)
		}
	}
}
