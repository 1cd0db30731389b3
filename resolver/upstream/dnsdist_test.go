package upstream_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"smartdns/resolver/upstream"
)

// startDnsdist runs Debian's dnsdist on loopback, with one answer of its own,
// until the test ends: plain DNS on 5354, DNS over TLS on 8854, over HTTPS on
// 8444.
func startDnsdist(t *testing.T, ca authority) {
	t.Helper()
	exe, err := exec.LookPath("dnsdist")
	if err != nil {
		t.Skip("SKIPPED: no dnsdist: apt-get install dnsdist")
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
	conf := write("dnsdist.conf", fmt.Appendf(nil, `
setSecurityPollSuffix("")
setLocal("127.0.0.1:5354")
addTLSLocal("127.0.0.1:8854", %[1]q, %[2]q)
addDOHLocal("127.0.0.1:8444", %[1]q, %[2]q, "/dns-query")
addAction(AllRule(), SpoofAction("192.0.2.1"))
`, certFile, keyFile))
	runServer(t, exec.Command(exe, "--supervised", "--disable-syslog", "-C", conf), "127.0.0.1:8444")
}

// Another real server is asked over every protocol that it speaks, by many at
// a time.
func TestDnsdist(t *testing.T) {
	ca := newAuthority(t)
	startDnsdist(t, ca)
	for scheme, port := range map[string]uint16{"udp": 5354, "tcp": 5354, "tls": 8854, "https": 8444} {
		t.Run(scheme, func(t *testing.T) {
			ex := newServer(t, upstream.Config{
				Scheme: scheme, Where: named(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)), Path: "/dns-query", RootCAs: ca.pool(),
			})
			var queries sync.WaitGroup
			for range 10 {
				queries.Go(func() {
					for range 10 {
						r, err := ex.Exchange(testContext(t), query(asked))
						if err != nil || be.Uint16(r.Msg[6:]) != 1 {
							t.Errorf("%v: % x", err, r.Msg)
						}
					}
				})
			}
			queries.Wait()
		})
	}
}
