package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

func zone(t testing.TB, text string) *policy.Records {
	t.Helper()
	r := new(policy.Records)
	if err := r.AddZone(strings.NewReader(text), "local.zone", 1); err != nil {
		t.Fatal(err)
	}
	r.Close()
	return r
}

// found is what Match says, as text.
func found(r *policy.Records, name string) string {
	all, at, ok := r.Match(dnsname.FQDN(name))
	if !ok {
		return "nothing"
	}
	parts := []string{"at " + at.String()}
	for _, rec := range all {
		parts = append(parts, fmt.Sprintf("%d %d %x %s", rec.Type, rec.TTL, rec.Data, rec.Pos))
	}
	return strings.Join(parts, "; ")
}

func TestZoneSyntax(t *testing.T) {
	r := zone(t, `; a comment
$TTL 300
nas.home.arpa.      A     192.168.8.2
NAS.home.arpa       AAAA  fd00::2       ; the same name, no last dot
$ORIGIN home.arpa.
printer  60 IN      A     192.168.8.3
                    TXT   "two" "strings"
www                 CNAME nas
_ipp._tcp           SRV   ( 0 0
                            631 printer )
svc                 HTTPS 1 . alpn=h2 ipv4hint=192.168.8.2
odd                 TYPE65280 \# 3 010203
`)
	for name, want := range map[string]string{
		"nas.home.arpa.":       "at nas.home.arpa; 1 300 c0a80802 local.zone:3; 28 300 fd000000000000000000000000000002 local.zone:4",
		"printer.home.arpa.":   "at printer.home.arpa; 1 60 c0a80803 local.zone:6; 16 300 0374776f07737472696e6773 local.zone:7",
		"www.home.arpa.":       "at www.home.arpa; 5 300 036e617304686f6d65046172706100 local.zone:8",
		"_ipp._tcp.home.arpa.": "at _ipp._tcp.home.arpa; 33 300 00000000027707" + "7072696e74657204686f6d65046172706100 local.zone:10",
		"svc.home.arpa.":       "at svc.home.arpa; 65 300 00010000010003026832" + "00040004c0a80802 local.zone:11",
		"odd.home.arpa.":       "at odd.home.arpa; 65280 300 010203 local.zone:12",
		"home.arpa.":           "nothing",
	} {
		if got := found(r, name); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
}

// RFC 4592 section 2.2.1, but for the delegation.
func TestWildcards(t *testing.T) {
	r := zone(t, `*.example. A 192.0.2.1
sub.*.example. A 192.0.2.2
host1.example. A 192.0.2.3
_ssh._tcp.host1.example. A 192.0.2.4
*.deep.example. A 192.0.2.5
`)
	for name, want := range map[string]string{
		"host3.example.":               "at *.example",
		"foo.bar.example.":             "at *.example",
		"*.example.":                   "at *.example",
		"sub.*.example.":               "at sub.*.example",
		"ghost.*.example.":             "nothing",
		"host1.example.":               "at host1.example",
		"_telnet._tcp.host1.example.":  "nothing",
		"_tcp.host1.example.":          "at _tcp.host1.example",
		"below.host1.example.":         "nothing",
		"deep.example.":                "at deep.example", // there, and empty
		"x.deep.example.":              "at *.deep.example",
		"example.":                     "nothing",
		"example.org.":                 "nothing",
		"notexample.":                  "nothing",
		`host\.example.`:               "nothing",
		"a.b.c.d.e.f.g.h.i.j.example.": "at *.example",
	} {
		if got, _, _ := strings.Cut(found(r, name), ";"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestZoneErrorsSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		"ok.example. A 192.0.2.1\nbad.example. A 192.0.2\n":          "local.zone:8: ",
		"\n\n; x\na.example. WHAT 1\n":                               "local.zone:10: ",
		"a.example. A 192.0.2.1\na.example. CNAME b.example.\n":      "local.zone:8: a name with a CNAME has no other record: there is one at local.zone:7",
		"a.example. CNAME c.example.\na.example. CNAME b.example.\n": "local.zone:8: a name has one CNAME: there is another at local.zone:7",
		"a.example. DNAME b.example.\n":                              "local.zone:7: DNAME is not served",
		"a.example. CH A 192.0.2.1\n":                                "local.zone:7: its class is CH",
		"$INCLUDE /etc/passwd\n":                                     "local.zone:7: ",
		"a.example. ANY\n":                                           "local.zone:7: ",
		strings.Repeat("x", 64) + ".example. A 192.0.2.1\n":          "local.zone:7: ",
		"a.example. A\n":                                             "local.zone:7: ",
	} {
		err := new(policy.Records).AddZone(strings.NewReader(text), "local.zone", 7)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	r := new(policy.Records)
	passed, err := r.AddHosts(strings.NewReader(`# the usual
127.0.0.1	localhost
192.168.8.2  NAS.home.arpa nas nas.   # three spellings
192.168.8.2  other.home.arpa
fd00::2 nas.home.arpa
::ffff:192.168.8.3 mapped
0.0.0.0 ads.example.com
fe80::1%eth0 router
not-an-address x
192.168.8.9
192.168.8.10 *.wild ok.home.arpa -._x
`), "hosts")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if passed.Lines != 4 || passed.First == nil || !strings.HasPrefix(passed.First.Error(), `hosts:8: "fe80::1%eth0" has an interface`) {
		t.Errorf("%d lines passed over, the first: %v", passed.Lines, passed.First)
	}
	for name, want := range map[string]string{
		"nas.home.arpa.":            "at nas.home.arpa; 1 60 c0a80802 hosts:3; 28 60 fd000000000000000000000000000002 hosts:5",
		"nas.":                      "at nas; 1 60 c0a80802 hosts:3",
		"2.8.168.192.in-addr.arpa.": "at 2.8.168.192.in-addr.arpa; 12 60 036e617304686f6d65046172706100 hosts:3",
		"mapped.":                   "at mapped; 1 60 c0a80803 hosts:6",
		"ads.example.com.":          "at ads.example.com; 1 60 00000000 hosts:7",
		"0.0.0.0.in-addr.arpa.":     "nothing",
		"ok.home.arpa.":             "at ok.home.arpa; 1 60 c0a8080a hosts:11",
		"router.":                   "nothing",
		"x.wild.":                   "nothing",
	} {
		if got := found(r, name); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
	if _, err := r.AddHosts(strings.NewReader("192.168.8.2 a\n"+strings.Repeat("x", 70<<10)), "hosts"); err == nil || !strings.HasPrefix(err.Error(), "hosts:2: ") {
		t.Errorf("a line of 70 KiB: %v", err)
	}
}

func TestReverseZones(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.168.50.0/24": "50.168.192.in-addr.arpa.",
		"10.0.0.0/8":      "10.in-addr.arpa.",
		"0.0.0.0/0":       "in-addr.arpa.",
		"172.16.0.0/15":   "16.172.in-addr.arpa. 17.172.in-addr.arpa.",
		"192.0.2.4/31":    "4.2.0.192.in-addr.arpa. 5.2.0.192.in-addr.arpa.",
		"192.0.2.4/32":    "4.2.0.192.in-addr.arpa.",
		"fd00::/8":        "d.f.ip6.arpa.",
		"2001:db8::/31":   "8.b.d.0.1.0.0.2.ip6.arpa. 9.b.d.0.1.0.0.2.ip6.arpa.",
		"2001:db8::/32":   "8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		var got []string
		for _, z := range policy.ReverseZones(netip.MustParsePrefix(prefix)) {
			got = append(got, string(z))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", prefix, s, want)
		}
	}
	if got := policy.Reverse(netip.MustParseAddr("fd00::2")); got.Labels() != 34 || !strings.HasPrefix(string(got), "2.0.0.") {
		t.Error(got)
	}
}

func TestMatchingRecordsDoesNotAllocate(t *testing.T) {
	r := zone(t, "a.example. A 192.0.2.1\nb.c.other. A 192.0.2.2\n")
	if n := testing.AllocsPerRun(100, func() { r.Match("www.example.org."); r.Match("a.example.") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever a zone file holds, what was read of it has data that a message can
// carry, and is found under its name.
func FuzzAddZone(f *testing.F) {
	f.Add("nas.home.arpa A 192.168.8.2\n*.dev TXT x\n$ORIGIN a.\n$TTL 5\nx HTTPS 1 . ipv4hint=1.2.3.4\n")
	f.Add("$GENERATE 1-3 h$ A 192.0.2.$\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToUpper(text), "$GENERATE") && len(text) > 40 {
			return // many records of few octets
		}
		r := new(policy.Records)
		_ = r.AddZone(strings.NewReader(text), "f", 1)
		checkRecords(t, r)
	})
}

func FuzzAddHosts(f *testing.F) {
	f.Add("127.0.0.1 localhost\n::1 localhost ip6 # x\n\n0.0.0.0 *.a\nfe80::1%lo x\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := new(policy.Records)
		passed, err := r.AddHosts(strings.NewReader(text), "f")
		if err == nil && passed.Lines > 0 && (passed.First == nil || strings.Contains(passed.First.Error(), "\n")) {
			t.Errorf("%d lines passed over: %q", passed.Lines, passed.First)
		}
		checkRecords(t, r)
	})
}

func checkRecords(t *testing.T, r *policy.Records) {
	t.Helper()
	r.Close()
	r.Each(func(name dnsname.FQDN, all []policy.Record) {
		got, _, ok := r.Match(name)
		if !ok || !slices.EqualFunc(got, all, func(a, b policy.Record) bool { return a.Type == b.Type }) {
			t.Fatalf("%s is not found: %v", name, got)
		}
		if again, err := dnsname.Parse(string(name)); err != nil || again != name {
			t.Fatalf("%q is no name: %v", name, err)
		}
		for _, rec := range all {
			if len(rec.Data) > 65535 || rec.Pos.Line < 1 {
				t.Fatalf("%s: %+v", name, rec)
			}
		}
	})
}
