package upstream_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"smartdns/resolver/upstream"
)

// startUnbound runs Debian's unbound on loopback, with a zone of its own, until
// the test ends: plain DNS on 5353, DNS over TLS on 8853, over HTTPS on 8443.
func startUnbound(t *testing.T, ca authority) {
	t.Helper()
	exe, err := exec.LookPath("unbound")
	if err != nil {
		t.Skip("SKIPPED: no unbound: apt-get install unbound")
	}
	dir := t.TempDir()
	cert := ca.issue(t, nil)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	certFile := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	conf := write("unbound.conf", fmt.Appendf(nil, `server:
  directory: %q
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  interface: 127.0.0.1@5353
  interface: 127.0.0.1@8853
  interface: 127.0.0.1@8443
  tls-port: 8853
  https-port: 8443
  tls-service-key: %q
  tls-service-pem: %q
  local-zone: "example." static
  local-data: "www.example. 300 A 192.0.2.1"
remote-control:
  control-enable: no
`, dir, keyFile, certFile))
	runServer(t, exec.Command(exe, "-d", "-c", conf), "127.0.0.1:8443")
}

// runServer runs a server until the test ends, and returns when it listens.
func runServer(t *testing.T, cmd *exec.Cmd, listens string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s says:\n%s", cmd.Path, b)
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		c, err := net.Dial("tcp", listens)
		if err == nil {
			c.Close()
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%s does not listen: %v", cmd.Path, err)
		}
	}
}

// A real server is asked over every protocol that it speaks.
func TestUnbound(t *testing.T) {
	ca := newAuthority(t)
	startUnbound(t, ca)
	for scheme, port := range map[string]uint16{"udp": 5353, "tcp": 5353, "tls": 8853, "https": 8443} {
		t.Run(scheme, func(t *testing.T) {
			ex := newServer(t, upstream.Config{
				Scheme: scheme, Where: named(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)), Path: "/dns-query", RootCAs: ca.pool(),
			})
			for range 3 {
				r, err := ex.Exchange(testContext(t), query(asked))
				if err != nil || be.Uint16(r.Msg[6:]) != 1 {
					t.Fatalf("%v: % x", err, r.Msg)
				}
			}
		})
	}
}
