package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"smartdns/lab"
	"smartdns/web/api"
)

// clientMAC returns the MAC of the LAN client.
func (w *world) clientMAC() (mac string) {
	w.t.Helper()
	err := w.Client.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if a := l.Attrs().HardwareAddr; len(a) == 6 && a.String() != "00:00:00:00:00:00" && l.Attrs().Flags&1 != 0 {
				mac = a.String()
			}
		}
		return err
	})
	if err != nil || mac == "" {
		w.t.Fatalf("the client has MAC %q: %v", mac, err)
	}
	return mac
}

// A line for a client's MAC holds from its first query on, over every
// transport, for it alone, and no longer once the file says so.
func TestLinesForOneClient(t *testing.T) {
	w := newWorld(t)
	plain := strings.Replace(w.config, "dns = [", `dot = ["192.168.8.1:853"]
dns = [{ address = "192.168.8.1:5300", side = "foreign" }, `, 1)
	line := `{ match = ["example.com", "baidu.com"], answer = "block", clients = ["` + w.clientMAC() + `"] },`
	w.config = strings.Replace(plain, "names = [", "names = [\n  "+line, 1)
	w.start()
	w.waitUp()
	ask := func(at netip.AddrPort, network, name string) int {
		t.Helper()
		m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{At: at, Net: network, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return m.Rcode
	}
	lan, guests := netip.AddrPortFrom(lab.LANV4, 53), netip.AddrPortFrom(lab.LANV4, 5300)
	for range 2 { // the second time from what was kept of others' answers
		for _, network := range []string{"udp", "tcp"} {
			for name, want := range map[string]int{"www.example.com": dns.RcodeNameError, "n00003.foreign.test": dns.RcodeSuccess} {
				if got := ask(lan, network, name); got != want {
					t.Errorf("the client asks for %s over %s: %s, want %s", name, network, dns.RcodeToString[got], dns.RcodeToString[want])
				}
			}
		}
		if out, err := w.cli("query", "www.example.com"); err != nil {
			t.Errorf("the gateway itself asks: %v\n%s", err, out)
		}
		if out, err := w.cli("query", "www.example.com", "--from", lab.ClientV4.String()); err == nil || !strings.Contains(out, "NXDOMAIN") {
			t.Errorf("query --from the client: %v\n%s", err, out)
		}
	}
	if got := ask(guests, "udp", "www.baidu.com"); got != dns.RcodeNameError {
		t.Errorf("a local answer at a listener with a side: %s", dns.RcodeToString[got])
	}
	w.overTLS("www.example.com", dns.RcodeNameError)

	if err := w.Gateway.WriteConfig(plain); err != nil {
		t.Fatal(err)
	}
	if out, err := w.cli("reload"); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	if got := ask(lan, "udp", "www.example.com"); got != dns.RcodeSuccess {
		t.Errorf("without the line: %s", dns.RcodeToString[got])
	}
	w.overTLS("www.example.com", dns.RcodeSuccess)
	before := w.asked("domestic")
	if got := ask(guests, "udp", "www.taobao.com"); got != dns.RcodeSuccess {
		t.Errorf("a name of the domestic side at a listener of the foreign one: %s", dns.RcodeToString[got])
	}
	if after := w.asked("domestic"); after != before {
		t.Errorf("the domestic side was asked %d times", after-before)
	}
	w.noLeaks()
}

// asked is how many queries the servers of a side have got.
func (w *world) asked(side string) (n uint64) {
	for _, s := range w.status().Sides {
		if s.Name == side {
			for _, v := range s.Servers {
				n += v.Queries
			}
		}
	}
	return n
}

// overTLS asks as a client that knows us by the pin of the status.
func (w *world) overTLS(name string, want int) {
	w.t.Helper()
	var s api.Status
	out, _ := w.cli("status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Listen.Certificate == nil {
		w.t.Fatalf("status: %v\n%s", err, out)
	}
	raw, err := w.Client.Dial(w.context(10*time.Second), "tcp", netip.AddrPort{}, netip.AddrPortFrom(lab.LANV4, 853))
	if err != nil {
		w.t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := dns.Conn{Conn: tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"dot"}, VerifyConnection: func(c tls.ConnectionState) error {
		pin := sha256.Sum256(c.PeerCertificates[0].RawSubjectPublicKeyInfo)
		if base64.StdEncoding.EncodeToString(pin[:]) != s.Listen.Certificate.Pin {
			return errors.New("another pin than the status prints")
		}
		return c.PeerCertificates[0].VerifyHostname(lab.LANV4.String())
	}})}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
		w.t.Fatal(err)
	}
	if m, err := c.ReadMsg(); err != nil || m.Rcode != want {
		w.t.Errorf("%s over TLS: %v, %v; want %s", name, m, err, dns.RcodeToString[want])
	}
}
