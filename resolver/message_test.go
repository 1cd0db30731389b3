package resolver

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

// whole returns m as a packed reply.
func whole(m message, name dnsname.FQDN, qtype uint16) []byte {
	return m.pack(nil, &[wire.HeaderLen]byte{2: 0x80, 5: 1}, question(name, qtype), name)
}

// packed returns a reply with the given records in its answer.
func packed(t testing.TB, name string, qtype uint16, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.Response, m.Compress = true, true
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rdata returns the data of the records of a packed message, uncompressed.
func rdata(t *testing.T, msg []byte) (all []string) {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	for _, rr := range m.Answer {
		b := make([]byte, 4096)
		n, err := dns.PackRR(rr, b, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hex.EncodeToString(b[:n]))
	}
	return all
}

// (SECURITY P-12)
func TestRecordsPassUnchanged(t *testing.T) {
	for _, text := range []string{
		`www.example.org. 300 IN HTTPS 1 svc.Example.net. mandatory="alpn" alpn="h3,h2" port="8443" ipv4hint="192.0.2.1" ech="AEX+DQBB" ipv6hint="2001:db8::1" key65400="x"`,
		`www.example.org. 300 IN HTTPS 0 Pool.Example.net.`,
		`www.example.org. 300 IN MX 10 Mail.www.example.org.`,
		`www.example.org. 300 IN SRV 1 2 3 target.www.example.org.`,
		`www.example.org. 300 IN NAPTR 1 2 "u" "E2U+sip" "!^.*$!sip:a@b!" next.www.example.org.`,
		`www.example.org. 300 IN TXT "a" "b" ""`,
		`www.example.org. 300 IN CAA 0 issue "ca.example"`,
		`www.example.org. 300 IN RP a.www.example.org. b.www.example.org.`,
		`www.example.org. 300 IN PX 5 a.www.example.org. b.www.example.org.`,
		`www.example.org. 300 IN NS ns.www.example.org.`,
		`www.example.org. 300 IN SOA ns.www.example.org. h.www.example.org. 1 2 3 4 5`,
		`www.example.org. 300 IN TYPE65280 \# 4 c00cc00c`,
		`www.example.org. 300 IN DNSKEY 256 3 13 oJMRESz5E4gYzS/q6XDrvU1qMPYIjCWzJaOau8XNEZeqCYKD5ar0IRd8KqXXFJkqmVfRvMGPmM1x8fGAa2XhSA==`,
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		qtype := rr.Header().Rrtype
		msg := packed(t, "www.example.org.", qtype, text)
		m, err := parse(msg, "www.example.org.", qtype, false)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		again := whole(m, "www.example.org.", qtype)
		if got, want := rdata(t, again), rdata(t, msg); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestFilterKeepsTheRest(t *testing.T) {
	text := `www.example.org. 300 IN HTTPS 1 . alpn="h2" ipv4hint="192.0.2.1,192.0.2.2" ipv6hint="2001:db8::1"`
	for _, c := range []struct{ about, drop, want string }{
		{"nothing", "", text},
		{"one of two", "192.0.2.1", `www.example.org. 300 IN HTTPS 1 . alpn="h2" ipv4hint="192.0.2.2" ipv6hint="2001:db8::1"`},
		{"the only one", "2001:db8::1", `www.example.org. 300 IN HTTPS 1 . alpn="h2" ipv4hint="192.0.2.1,192.0.2.2"`},
	} {
		m, err := parse(packed(t, "www.example.org.", dns.TypeHTTPS, text), "www.example.org.", dns.TypeHTTPS, false)
		if err != nil {
			t.Fatal(err)
		}
		shared := m.answer[0].data
		before := bytes.Clone(shared)
		kept := m.filter(func(f found) bool { return f.addr.String() != c.drop })
		got := whole(kept, "www.example.org.", dns.TypeHTTPS)
		if g, w := rdata(t, got), rdata(t, packed(t, "www.example.org.", dns.TypeHTTPS, c.want)); strings.Join(g, "") != strings.Join(w, "") {
			t.Errorf("without %s: %s, want %s", c.about, g, w)
		}
		if !bytes.Equal(before, shared) {
			t.Errorf("without %s: the shared record changed", c.about)
		}
	}
}

func TestFilterDropsWhatItCannotKeep(t *testing.T) {
	refuse := func(found) bool { return false }
	for about, data := range map[string]string{
		"a mandatory hint is refused": "000100" + "00000002" + "0004" + "00040004" + "c0000201",
		"half an address":             "000100" + "00040003" + "c00002",
		"a parameter past the end":    "000100" + "00040008" + "c0000201",
		"no target":                   "0001",
	} {
		b, err := hex.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		m := message{answer: []record{{"a.", dns.TypeHTTPS, 1, b}}}
		if kept := m.filter(refuse); len(kept.answer) != 0 {
			t.Errorf("%s: kept", about)
		}
	}
}

func TestDuplicatesAreOne(t *testing.T) {
	records := make([]string, 200)
	for i := range records {
		records[i] = "a.example. 60 IN A 192.0.2.1"
	}
	m, err := parse(packed(t, "a.example.", dns.TypeA, records...), "a.example.", dns.TypeA, false)
	if err != nil || len(m.answer) != 1 {
		t.Errorf("%d records, %v", len(m.answer), err)
	}
}

func TestHostileMessages(t *testing.T) {
	head := "000081800001000100000000" + "0161000001 0001"
	for about, body := range map[string]string{
		"a pointer to itself":           "c013" + "00010001" + "0000003c" + "0004" + "c0000201",
		"a pointer forwards":            "c0ff" + "00010001" + "0000003c" + "0004" + "c0000201",
		"an A of three octets":          "c00c" + "00010001" + "0000003c" + "0003" + "c00002",
		"data past the end":             "c00c" + "00010001" + "0000003c" + "00ff" + "c0000201",
		"no record where one is":        "",
		"a CNAME that ends outside":     "c00c" + "00050001" + "0000003c" + "0001" + "0161",
		"an extended label":             "41" + "00010001" + "0000003c" + "0004" + "c0000201",
		"a CNAME longer than 255":       "c00c" + "00050001" + "0000003c" + "0140" + strings.Repeat("3f"+strings.Repeat("61", 63), 5) + "00",
		"a CNAME that points to itself": "c00c" + "00050001" + "0000003c" + "0002" + "c00c",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(head+body, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if m, err := parse(b, "a.", 1, false); err == nil {
			t.Errorf("%s: %+v", about, m)
		}
	}
}

func TestLife(t *testing.T) {
	soa := record{"example.", dns.TypeSOA, 300, localSOA("example.").data}
	for _, c := range []struct {
		about string
		m     message
		kind  cache.Kind
		life  time.Duration
	}{
		{"the shortest TTL of the chain", message{answer: []record{
			{"a.", dns.TypeCNAME, 20, []byte("\x01b\x00")}, {"b.", dns.TypeA, 300, []byte{1, 2, 3, 4}},
		}}, cache.Positive, 20 * time.Second},
		{"NXDOMAIN with a SOA", message{rcode: 3, authority: []record{soa}}, cache.Negative, 300 * time.Second},
		{"a CNAME to nothing", message{answer: []record{{"a.", dns.TypeCNAME, 20, []byte("\x01b\x00")}}, authority: []record{soa}}, cache.Negative, 20 * time.Second},
		{"nothing, without a SOA", message{}, cache.Bare, 24 * time.Hour},
	} {
		if kind, life := c.m.life(dns.TypeA); kind != c.kind || life != c.life {
			t.Errorf("%s: %v for %v, want %v for %v", c.about, kind, life, c.kind, c.life)
		}
	}
}

func TestCarriesV4(t *testing.T) {
	for text, want := range map[string]bool{
		"::ffff:192.0.2.1": true, "64:ff9b::c000:201": true, "2002:c000:201::1": true,
		"2001:db8::1": false, "64:ff9b:2::1": false, "192.0.2.1": false, "32.2.0.1": false,
	} {
		if got := carriesV4(netip.MustParseAddr(text)); got != want {
			t.Errorf("carriesV4(%s) = %v", text, got)
		}
	}
	if isTeredo(netip.MustParseAddr("32.1.0.0")) || !isTeredo(netip.MustParseAddr("2001::1")) || isTeredo(netip.MustParseAddr("2001:1::1")) {
		t.Error("isTeredo")
	}
}

func TestSpecialZones(t *testing.T) {
	for name, want := range map[dnsname.FQDN]zoneKind{
		"localhost.": fixed, "onion.": fixed, "local.": local, "16.172.in-addr.arpa.": local, "31.172.in-addr.arpa.": local,
		"15.172.in-addr.arpa.": notSpecial, "32.172.in-addr.arpa.": notSpecial, "016.172.in-addr.arpa.": notSpecial,
		"64.100.in-addr.arpa.": local, "63.100.in-addr.arpa.": notSpecial, "d.f.ip6.arpa.": local, "com.": notSpecial, ".": notSpecial,
	} {
		if got := specialZone(name); got != want {
			t.Errorf("specialZone(%s) = %v, want %v", name, got, want)
		}
	}
}
