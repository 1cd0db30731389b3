package lab_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/lab"
)

func TestNames(t *testing.T) {
	ctx, w := newWorld(t)
	home := netip.MustParsePrefix("114.240.0.0/24")
	abroad := netip.MustParsePrefix("45.76.1.0/24")
	for _, row := range []struct {
		what string
		q    lab.Question
		want string // rcode and addresses
	}{
		{"home name at home", lab.Question{Server: lab.AliDNS, Name: "www.baidu.com"}, "NOERROR 39.156.66.10"},
		{"home name abroad", lab.Question{Server: lab.Google, Name: "www.baidu.com"}, "NOERROR 39.156.66.10"},
		{"home name, v6", lab.Question{Server: lab.AliDNSV6, Name: "www.baidu.com", Type: dns.TypeAAAA}, "NOERROR 2400:da00::66:10"},
		{"any case", lab.Question{Server: lab.AliDNS, Name: "wWw.BaIdU.cOm"}, "NOERROR 39.156.66.10"},
		{"a numbered name", lab.Question{Server: lab.Google, Name: "n00258.foreign.test"}, "NOERROR 93.184.1.2"},
		{"without zeros", lab.Question{Server: lab.DNSPod, Name: "n258.foreign.test"}, "NOERROR 93.184.1.2"},
		{"numbered at home", lab.Question{Server: lab.DNSPod, Name: "n258.cn.test"}, "NOERROR 39.156.1.2"},
		{"too large a number", lab.Question{Server: lab.Google, Name: "n12001.foreign.test"}, "NXDOMAIN"},
		{"a CDN asked at home", lab.Question{Server: lab.AliDNS, Name: "www.cdn.test"}, "NOERROR 39.156.70.1"},
		{"a CDN asked abroad", lab.Question{Server: lab.Google, Name: "www.cdn.test"}, "NOERROR 93.184.221.1"},
		{"a CDN asked abroad for home", lab.Question{Server: lab.Google, Name: "www.cdn.test", ECS: home}, "NOERROR 39.156.70.1"},
		{"a CDN asked abroad for abroad", lab.Question{Server: lab.Google, Name: "www.cdn.test", ECS: abroad}, "NOERROR 93.184.221.1"},
		{"a CDN where ECS is ignored", lab.Question{Server: lab.Cloudflare, Name: "www.cdn.test", ECS: home}, "NOERROR 93.184.221.1"},
		{"a CDN behind a CNAME for home", lab.Question{Server: lab.Google, Name: "img.cdn.test", ECS: home}, "NOERROR 39.156.70.2"},
		{"a numbered CDN for home", lab.Question{Server: lab.Google, Name: "n5.cdn.test", ECS: home}, "NOERROR 39.156.0.5"},
		{"a numbered CDN", lab.Question{Server: lab.Google, Name: "n5.cdn.test"}, "NOERROR 93.184.0.5"},
		{"a chain", lab.Question{Server: lab.Google, Name: "chain.foreign.test"}, "NOERROR 93.184.218.5"},
		{"a chain across sides at home", lab.Question{Server: lab.AliDNS, Name: "cross.cn.test"}, "NOERROR 203.98.7.66"},
		{"a chain across sides abroad", lab.Question{Server: lab.Google, Name: "cross.cn.test"}, "NOERROR 93.184.216.40"},
		{"HTTPS with hints", lab.Question{Server: lab.Google, Name: "n1.foreign.test", Type: dns.TypeHTTPS}, "NOERROR 93.184.117.49 2606:2800:220:1:1::7531"},
		{"no data", lab.Question{Server: lab.Google, Name: "nodata.foreign.test"}, "NOERROR"},
		{"no such name", lab.Question{Server: lab.Google, Name: "nothing.test"}, "NXDOMAIN"},
		{"a name of the real world", lab.Question{Server: lab.Google, Name: "kernel.org"}, "NXDOMAIN"},
		{"poisoned at home", lab.Question{Server: lab.AliDNS, Name: "n1.blocked.test", Net: "tcp"}, "NOERROR 203.98.7.65"},
		{"poisoned abroad", lab.Question{Server: lab.Google, Name: "n1.blocked.test", Net: "tcp"}, "NOERROR 93.184.0.1"},
	} {
		m, err := w.Client.Ask(ctx, row.q)
		if err != nil {
			t.Errorf("%s: %v", row.what, err)
			continue
		}
		got := dns.RcodeToString[m.Rcode]
		for _, a := range append(lab.Addresses(m), lab.Hints(m)...) {
			got += " " + a.String()
		}
		want := strings.Fields(row.want)
		for i, f := range want[1:] {
			want[1+i] = netip.MustParseAddr(f).String()
		}
		if got != strings.Join(want, " ") {
			t.Errorf("%s: got %s, want %s", row.what, got, row.want)
		}
		if row.want == "NOERROR" || row.want == "NXDOMAIN" {
			if len(m.Ns) != 1 {
				t.Errorf("%s: no SOA", row.what)
			}
		}
	}

	m, err := w.Client.Ask(ctx, lab.Question{Server: lab.Google, Name: "ttl7.www.example.com"})
	if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 7 {
		t.Errorf("ttl7: %v, %v", m, err)
	}
	m, err = w.Client.Ask(ctx, lab.Question{Server: lab.Google, Name: "large.foreign.test", Type: dns.TypeTXT})
	if err != nil || !m.Truncated || m.Len() > 1232 {
		t.Errorf("a large answer by UDP: %d B, truncated %t, %v", m.Len(), m.Truncated, err)
	}
	m, err = w.Client.Ask(ctx, lab.Question{Server: lab.Google, Name: "large.foreign.test", Type: dns.TypeTXT, Net: "tcp"})
	if err != nil || m.Truncated || m.Len() < 3000 {
		t.Errorf("a large answer by TCP: %d B, truncated %t, %v", m.Len(), m.Truncated, err)
	}
}

func TestTestsChangeNames(t *testing.T) {
	ctx, w := newWorld(t)
	ask := func(server netip.Addr, name string) string {
		m, err := w.Client.Ask(ctx, lab.Question{Server: server, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		s := dns.RcodeToString[m.Rcode]
		for _, a := range lab.Addresses(m) {
			s += " " + a.String()
		}
		return s
	}
	if err := w.Zone.Add(lab.AtHome, "new.test. 5 A 39.156.1.1"); err != nil {
		t.Fatal(err)
	}
	if got := ask(lab.AliDNS, "new.test") + ", " + ask(lab.Google, "new.test"); got != "NOERROR 39.156.1.1, NXDOMAIN" {
		t.Errorf("added at home: %s", got)
	}
	w.Zone.Remove(lab.AtHome, "new.test")
	if got := ask(lab.AliDNS, "new.test"); got != "NXDOMAIN" {
		t.Errorf("removed: %s", got)
	}
	if err := w.Zone.Add(lab.AtHome, "new.test. 5 A nonsense"); err == nil {
		t.Error("nonsense was added")
	}
	w.Zone.Poison("kernel.org")
	if !w.Zone.Poisoned("WWW.kernel.org.") || w.Zone.Poisoned("akernel.org") || w.Zone.Poisoned("org") {
		t.Error("the poison list does not match by label")
	}
	w.Zone.AnswerAll(func(name string) bool { return strings.HasSuffix(name, ".cn.") })
	a, b := ask(lab.Google, "www.gov.cn"), ask(lab.Google, "go.dev")
	if !strings.HasPrefix(a, "NOERROR 39.156.") || !strings.HasPrefix(b, "NOERROR 93.184.") || ask(lab.AliDNS, "go.dev") != b {
		t.Errorf("all names: %s, %s", a, b)
	}
	if got := ask(lab.Google, "nothing.test"); got != "NXDOMAIN" {
		t.Errorf("a name of the lab: %s", got)
	}
	w.DNS.SetSilent(lab.AliDNS, true)
	w.DNS.Forget()
	if _, err := w.Client.AskAll(ctx, lab.Question{Server: lab.AliDNS, Name: "go.dev"}, 0); err != nil {
		t.Error(err)
	}
	ask(lab.DNSPod, "go.dev")
	servers := []netip.Addr{}
	for _, a := range w.DNS.Asked("GO.dev") {
		servers = append(servers, a.Server)
	}
	if !slices.Contains(servers, lab.DNSPod) {
		t.Errorf("asked %s", servers)
	}
}

func TestNumberedAddressesAreDistinct(t *testing.T) {
	seen := map[netip.Addr]int{lab.HomeWebV4: -1, lab.HomeWebV6: -1, lab.AbroadWebV4: -1, lab.AbroadWebV6: -1}
	for n := 1; n <= lab.MaxNumber; n++ {
		for _, home := range []bool{true, false} {
			for _, v6 := range []bool{true, false} {
				for _, a := range []netip.Addr{lab.NumberedAddr(n, home, v6), lab.NumberedHint(n, home, v6)} {
					if old, ok := seen[a]; ok {
						t.Fatalf("%s is of %d and of %d", a, old, n)
					}
					seen[a] = n
					if lab.IsHome(a) != home || lab.IsAbroad(a) == home {
						t.Fatalf("%s is on the wrong side", a)
					}
				}
			}
		}
	}
}
