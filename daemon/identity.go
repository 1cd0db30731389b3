package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"smartdns/resolver/server"
	"smartdns/routing"
	"smartdns/web/api"
)

// certificateName is our own certificate and its key in the state directory.
const certificateName = "tls.pem"

// identity is what TLS listeners show: the certificate of the files of the
// config, read anew when they change, or one of our own, renewed in time. Its
// methods are safe for concurrent use.
type identity struct {
	own string // path of our own certificate
	log *slog.Logger

	mu    sync.Mutex // guards following
	files certFiles
	host  string
	addrs []netip.Addr // in our own certificate
	shown *tls.Certificate
	stamp [2]stamp // of the files when they were last read
	err   error    // why what is shown is not what should be
}

type certFiles struct{ cert, key string }

// stamp tells one content of a file from another.
type stamp struct {
	size int64
	time time.Time
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}

// use shows what parts say at listeners from now on.
func (i *identity) use(p *Parts, listeners []netip.AddrPort, f routing.Facts) {
	var host []netip.Addr
	for _, l := range f.Links {
		for _, a := range l.Addrs {
			if !a.Addr().IsLinkLocalUnicast() {
				host = append(host, a.Addr())
			}
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	files := certFiles{p.Config.Listen.Cert, p.Config.Listen.Key}
	addrs := shownAddrs(listeners, host)
	switch {
	case len(listeners) == 0:
		i.files, i.addrs, i.err = certFiles{}, nil, nil
		i.show(nil)
		return
	case p.Certificate != nil && p.Certificate != i.shown && (files != i.files || i.shown == nil):
		i.stamp = [2]stamp{stampOf(files.cert), stampOf(files.key)}
		i.err = nil
		i.show(p.Certificate)
	case p.Certificate == nil && (files != i.files || !slices.Equal(addrs, i.addrs)):
		i.shown = nil
	}
	i.files, i.addrs, i.host = files, addrs, hostName()
	i.refreshLocked()
}

// get implements server.Certificate.
func (i *identity) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refreshLocked()
	if i.shown == nil {
		return nil, errors.New("there is no certificate to show")
	}
	return i.shown, nil
}

// refreshLocked makes shown what it should be now. What is shown already stays
// when that fails.
func (i *identity) refreshLocked() {
	if i.files != (certFiles{}) {
		now := [2]stamp{stampOf(i.files.cert), stampOf(i.files.key)}
		if now == i.stamp && i.shown != nil {
			return
		}
		i.stamp = now
		cert, err := readPair(i.files.cert, i.files.key)
		if i.err = err; err != nil {
			i.err = fmt.Errorf("[listen] %w; the certificate of before is still shown", err)
			return
		}
		i.show(cert)
		return
	}
	if i.addrs == nil || i.shown != nil && fits(i.shown.Leaf, i.host, i.addrs, time.Now()) {
		return
	}
	cert, err := ownCertificate(i.own, i.host, i.addrs, time.Now())
	if i.err = err; cert != nil {
		i.show(cert)
	}
}

func (i *identity) show(cert *tls.Certificate) {
	if i.shown = cert; cert != nil {
		i.log.Info("TLS listeners show a certificate", "pin", pinOf(cert.Leaf), "until", cert.Leaf.NotAfter.Format(time.DateOnly))
	}
}

// problem returns why what is shown is not what should be.
func (i *identity) problem() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refreshLocked()
	if i.err == nil && i.files != (certFiles{}) && i.shown != nil && time.Now().After(i.shown.Leaf.NotAfter) {
		return fmt.Errorf("[listen] cert: %s ended on %s: clients refuse it", i.files.cert, i.shown.Leaf.NotAfter.Format(time.DateOnly))
	}
	return i.err
}

// status is nil when nothing is shown.
func (i *identity) status() *api.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refreshLocked()
	if i.shown == nil {
		return nil
	}
	leaf := i.shown.Leaf
	c := &api.Certificate{Pin: pinOf(leaf), Own: i.files == (certFiles{}), File: i.files.cert, Until: leaf.NotAfter, Names: slices.Clone(leaf.DNSNames)}
	if c.Own {
		c.File = i.own
	}
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}

// listenSecure serves the addresses of the encrypted transports.
func (e *engine) listenSecure(l live) error {
	c := e.parts.Config.Listen
	e.identity.use(e.parts, slices.Concat(c.DoT, c.DoH), l.facts)
	return e.server.ListenSecure(server.Secure{TLS: c.DoT, HTTPS: c.DoH, Certificate: e.identity.get})
}

func newIdentity(o Options) *identity {
	return &identity{own: filepath.Join(o.Dirs.State, certificateName), log: o.Log}
}
