package daemon

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packed is an answer of these records, in the text of a zone file.
func packed(t testing.TB, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("example.com.", dns.TypeANY)
	m.Response, m.Compress = true, true
	for _, s := range records {
		rr, err := dns.NewRR(s)
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

func TestRecordsReadLikeAZoneFile(t *testing.T) {
	for _, c := range []struct{ record, want string }{
		{"example.com. 60 IN A 192.0.2.1", ""},
		{"example.com. 60 IN AAAA 2001:db8::1", ""},
		{"example.com. 60 IN CNAME www.example.net.", "CNAME 60 www.example.net"},
		{"example.com. 60 IN NS .", "NS 60 ."},
		{"1.2.0.192.in-addr.arpa. 60 IN PTR host.example.com.", "PTR 60 host.example.com"},
		{"example.com. 60 IN MX 10 mail.example.com.", "MX 60 10 mail.example.com"},
		{"_sip._udp.example.com. 60 IN SRV 1 2 5060 sip.example.com.", "SRV 60 1 2 5060 sip.example.com"},
		{"example.com. 60 IN SOA ns.example.com. admin.example.com. 1 2 3 4 5", "SOA 60 ns.example.com admin.example.com 1 2 3 4 5"},
		{`example.com. 60 IN TXT "v=spf1 -all" "a \"quote\" and \\ \000\010\255"`, `TXT 60 "v=spf1 -all" "a \"quote\" and \\ \000\010\255"`},
		{"example.com. 60 IN HTTPS 0 svc.example.net.", "HTTPS 60 0 svc.example.net"},
		{
			`example.com. 60 IN HTTPS 1 . alpn="h3,h2" no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1 ech="/wA="`,
			"HTTPS 60 1 . alpn=h3,h2 no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.2 key5=ff00 ipv6hint=2001:db8::1",
		},
		{"_dns.example.com. 60 IN SVCB 1 dns.example.com. alpn=dot", "SVCB 60 1 dns.example.com alpn=dot"},
		{`example.com. 60 IN CAA 0 issue "ca.example"`, `TYPE257 60 \# 17 0005697373756563612e6578616d706c65`},
		{`example.com. 60 IN CNAME a\027[2J\010b\226\128\174\".example.net.`, `CNAME 60 a\027[2J\010b\226\128\174\".example.net`},
	} {
		var got []string
		for _, r := range records(packed(t, c.record)) {
			got = append(got, strings.Join([]string{r.Type, "60", r.Data}, " "))
			if r.TTL != 60 || strings.HasSuffix(r.Name, ".") {
				t.Errorf("%s: %+v", c.record, r)
			}
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.record, got, c.want)
		}
	}
	all := records(packed(t, "example.com. 60 IN CNAME b.example.com.", "b.example.com. 60 IN A 192.0.2.1", "b.example.com. 60 IN CNAME c.example.com."))
	if len(all) != 2 || all[1].Name != "b.example.com" {
		t.Errorf("of a chain: %+v", all)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(packed(f, "example.com. 60 IN CNAME www.example.net.", `www.example.net. 60 IN TXT "\000"`))
	f.Add(packed(f, `example.com. 60 IN HTTPS 1 . alpn="h3,h2" port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1`))
	f.Add(packed(f, `example.com. 60 IN CAA 0 issue "ca.example"`)[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range records(b) {
			if strings.ContainsFunc(r.Name+r.Type+r.Data, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("%q %q %q", r.Name, r.Type, r.Data)
			}
		}
	})
}
