package conformance_test

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// zone is what the authority knows everything about. Its DNSKEY set does not
// fit in 512 octets.
const zone = "zone.example.net."

var records = []string{
	"SOA ns hostmaster 1 7200 3600 1209600 300", "NS ns", "A 93.184.216.34", "AAAA 2606:2800:220:1::1",
	"MX 10 mail", `TXT "some text" "and more"`, `HINFO "PDP-11" "UNIX"`, "RP hostmaster text", "AFSDB 1 afs",
	"SRV 1 2 443 www", `NAPTR 1 1 "u" "sip" "!^.*$!sip:x@y!" .`, "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m",
	"CAA 0 issue \"ca.example\"", "TLSA 3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971",
	"SSHFP 1 1 123456789abcdef67890123456789abcdef67890", `URI 1 1 "https://www.zone.example.net/"`,
	"SVCB 1 svc alpn=h2 port=8443", "HTTPS 1 . alpn=h2,h3", "DS 60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
	"EUI48 00-00-5e-00-53-2a", "NID 10 0014:4fff:ff20:ee64", "L32 10 10.1.2.0", "OPENPGPKEY AAAA",
	"DNSKEY 256 3 13 " + key('A'), "DNSKEY 256 3 13 " + key('B'), "DNSKEY 257 3 13 " + key('C'),
	"DNSKEY 257 3 13 " + key('D'), "DNSKEY 257 3 13 " + key('E'), "DNSKEY 257 3 13 " + key('F'),
	"RRSIG SOA 13 3 3600 20300101000000 20200101000000 12345 @ " + key('S'),
	"RRSIG DNSKEY 13 3 3600 20300101000000 20200101000000 12345 @ " + key('K'),
}

// key is 120 octets in base64.
func key(c byte) string { return strings.Repeat(string(c), 160) }

// serveZone answers for zone at authority, as the standards say a server does
// that knows EDNS and signs. It ends with the test.
func serveZone(t *testing.T) {
	t.Helper()
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR("$ORIGIN " + zone + "\n@ 3600 IN " + text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all = append(all, rr)
	}
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		opt := q.IsEdns0()
		do := opt != nil && opt.Do()
		for _, rr := range all {
			sig, isSig := rr.(*dns.RRSIG)
			if !strings.EqualFold(q.Question[0].Name, zone) {
				break
			}
			if rr.Header().Rrtype == q.Question[0].Qtype || do && isSig && sig.TypeCovered == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if len(m.Answer) == 0 {
			m.Ns = append(m.Ns, all[0])
			if !strings.EqualFold(q.Question[0].Name, zone) {
				m.Rcode = dns.RcodeNameError
			}
		}
		size := dns.MinMsgSize
		if opt != nil {
			m.SetEdns0(1232, do)
			size = int(opt.UDPSize())
		}
		if _, overTCP := w.RemoteAddr().(*net.TCPAddr); overTCP {
			size = dns.MaxMsgSize
		}
		m.Truncate(size)
		w.WriteMsg(m)
	})
}

// serve answers at authority over UDP and TCP until the test ends.
func serve(t *testing.T, h dns.HandlerFunc) {
	t.Helper()
	serveAt(t, authority, h)
}

// serveAt is serve for another address.
func serveAt(t *testing.T, addr string, h dns.HandlerFunc) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		serveOn(t, network, addr, h)
	}
}

// serveOn is serveAt over one transport.
func serveOn(t *testing.T, network, addr string, h dns.HandlerFunc) {
	t.Helper()
	var up, ended sync.WaitGroup
	up.Add(1)
	s := &dns.Server{Addr: addr, Net: network, Handler: h, NotifyStartedFunc: up.Done, MaxTCPQueries: -1}
	failed := make(chan error, 1)
	ended.Go(func() {
		if err := s.ListenAndServe(); err != nil {
			failed <- err
			up.Done()
		}
	})
	up.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	t.Cleanup(func() { s.Shutdown(); ended.Wait() })
}
