package conformance_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A provider's address for names that do not exist means just that, each of
// those of the published list, whichever side gives it; what is beside them is
// an answer (SECURITY S-16; that none of them is marked, package resolver shows).
func TestEveryBogusAddressMeansNXDOMAIN(t *testing.T) {
	list, err := filepath.Abs("../../../shared/data/domains/bogus-nxdomain.china.conf")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(list)
	if err != nil {
		t.Skip("SKIPPED: no ../shared/data: " + err.Error())
	}
	defer f.Close()
	var addrs []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if a, ok := strings.CutPrefix(lines.Text(), "bogus-nxdomain="); ok {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) < 100 {
		t.Fatalf("%d addresses in the list", len(addrs))
	}
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		first, _, _ := strings.Cut(q.Question[0].Name, ".")
		b, _ := q.Pack()
		n, err := strconv.Atoi(first)
		if err != nil {
			w.Write(answer(b, home))
			return
		}
		w.Write(edit(b, func(m *dns.Msg) {
			m.Answer = []dns.RR{rr(fmt.Sprintf("%s 300 IN %s %s", m.Question[0].Name, dns.TypeToString[typeOf(addrs[n])], addrs[n]))}
		}))
	})
	run(t, `
[listen]
dns = ["`+ours+`"]

[list.bogus]
file = "`+list+`"

[poison]
hold = "10ms"
bogus = ["list:bogus"]

[side.domestic]
servers = ["`+authority+`"]

[side.foreign]
servers = ["`+authority+`"]

[decide]
names = [
  { match = "cn.example.net", ask = "domestic" },
  { match = "*", ask = "foreign" },
]
`)
	var asking sync.WaitGroup
	for _, zone := range []string{"cn.example.net.", "example.org."} {
		for client := range 8 {
			asking.Go(func() {
				for n := client; n < len(addrs); n += 8 {
					q := new(dns.Msg).SetQuestion(fmt.Sprintf("%d.%s", n, zone), typeOf(addrs[n]))
					c := dns.Client{Timeout: 15 * time.Second}
					if m, _, err := c.Exchange(q, ours); err != nil || m.Rcode != dns.RcodeNameError || len(m.Answer) > 0 {
						t.Errorf("%s from %s: %v, %v", addrs[n], zone, m, err)
					}
				}
			})
		}
		asking.Wait()
		if got := lookup(t, "www."+zone); got != home {
			t.Errorf("www.%s: %s", zone, got)
		}
	}
	t.Logf("%d addresses", len(addrs))
}

// typeOf is the type of the records of an address.
func typeOf(addr string) uint16 {
	if strings.Contains(addr, ":") {
		return dns.TypeAAAA
	}
	return dns.TypeA
}
