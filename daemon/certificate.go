package daemon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"smartdns/configs"
	"smartdns/internal/wholefile"
)

const (
	// Clients of some vendors refuse certificates of more than 398 days.
	ownLife  = 397 * 24 * time.Hour
	ownRenew = 30 * 24 * time.Hour // before the end
	// A clock that was never set is behind, and then jumps.
	ownBackdate = 24 * time.Hour
)

// loadCertificate reads what TLS listeners show, nil when c names no files.
func loadCertificate(c *configs.Config) (*tls.Certificate, error) {
	if c.Listen.Cert == "" {
		return nil, nil
	}
	cert, err := readPair(c.Listen.Cert, c.Listen.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: [listen] %w", filepath.Base(c.File), err)
	}
	return cert, nil
}

func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	keyFile = readable(keyFile)
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("key: mode %04o lets others at the private key: chmod 600 %s", mode, keyFile)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
	}
	return &cert, nil
}

// pinOf returns the pin of a certificate's key, as kdig, Android and stubby
// write it (RFC 7858 section 4.2): it stays the same as long as the key does.
func pinOf(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ownCertificate returns the certificate of our own in file, or a new one with
// the key that lies there, where that one ends soon or lacks one of the names.
// It is usable also when err says that it could not be kept.
func ownCertificate(file string, host string, addrs []netip.Addr, now time.Time) (cert *tls.Certificate, err error) {
	old, err := readOwn(file)
	if err == nil && fits(old.Leaf, host, addrs, now) {
		return old, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		// A key that cannot be read is gone, and its pin with it.
		err = os.Rename(file, file+".corrupt")
	} else {
		err = nil
	}
	var key *ecdsa.PrivateKey
	if old != nil {
		key, _ = old.PrivateKey.(*ecdsa.PrivateKey)
	}
	if key == nil {
		var kerr error
		if key, kerr = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); kerr != nil {
			return nil, fmt.Errorf("making a key for TLS: %w", kerr)
		}
	}
	cert, text, ierr := issue(key, host, addrs, now)
	if ierr != nil {
		return nil, fmt.Errorf("making a certificate for TLS: %w", ierr)
	}
	if err = errors.Join(err, keepOwn(file, text)); err != nil {
		err = fmt.Errorf("keeping the certificate for TLS: %w", err)
	}
	return cert, err
}

func readOwn(file string) (*tls.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if cert.Leaf == nil {
		cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
	}
	return &cert, err
}

// fits reports whether a certificate of our own still serves.
func fits(leaf *x509.Certificate, host string, addrs []netip.Addr, now time.Time) bool {
	if now.Before(leaf.NotBefore) || now.Add(ownRenew).After(leaf.NotAfter) || leaf.VerifyHostname(host) != nil {
		return false
	}
	for _, a := range addrs {
		if leaf.VerifyHostname(a.WithZone("").String()) != nil {
			return false
		}
	}
	return true
}

// issue makes a certificate, and the PEM text of it and its key.
func issue(key *ecdsa.PrivateKey, host string, addrs []netip.Addr, now time.Time) (*tls.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "smartdns on " + host},
		NotBefore: now.Add(-ownBackdate), NotAfter: now.Add(ownLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: []string{host},
	}
	for _, a := range addrs {
		t.IPAddresses = append(t.IPAddresses, a.WithZone("").AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, nil, err
	}
	if cert.Leaf == nil {
		cert.Leaf, err = x509.ParseCertificate(der)
	}
	return &cert, text, err
}

// keepOwn writes text so that file has all of it or what it had before.
func keepOwn(file string, text []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return wholefile.ReplaceBytes(file, text)
}

// hostName is the name of this host in its own certificate.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// shownAddrs returns the addresses that clients know TLS listeners by. A
// wildcard stands for every address of this host.
func shownAddrs(listeners []netip.AddrPort, host []netip.Addr) []netip.Addr {
	var all []netip.Addr
	for _, l := range listeners {
		if !l.Addr().IsUnspecified() {
			all = append(all, l.Addr())
			continue
		}
		for _, a := range host {
			if a.Is4() == l.Addr().Is4() {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
