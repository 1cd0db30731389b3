package conformance_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab/netnstest"
)

const unbound = "127.0.0.1:5310"

// invented says what a server in front of the world would know of a question:
// always the same, of every kind that occurs.
func invented(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do())
	}
	m.Ns = []dns.RR{rr("example.net. 3600 IN SOA ns.example.net. hostmaster.example.net. 1 7200 3600 1209600 300")}
	owner, name := m.Question[0].Name, strings.ToLower(m.Question[0].Name)
	kind := kindOf(name)
	for ; kind == 1 && !strings.HasPrefix(name, "xxx"); kind = kindOf(name) {
		m.Answer = append(m.Answer, rr(owner+" 600 IN CNAME x"+name))
		owner, name = "x"+name, "x"+name
	}
	if kind == 0 {
		m.Rcode = dns.RcodeNameError
	} else if data := inventedData(owner, m.Question[0].Qtype, kind); data != nil {
		m.Answer, m.Ns = append(m.Answer, data...), nil
	}
	w.WriteMsg(m)
}

// kindOf spreads the names over 0 (there is none), 1 (it leads to another one)
// and the rest, whose data differ.
func kindOf(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32() % 8)
}

func inventedData(name string, typ uint16, kind int) (all []dns.RR) {
	add := func(format string, args ...any) { all = append(all, rr(name+fmt.Sprintf(" 300 IN "+format, args...))) }
	for i := range kind % 5 {
		switch typ {
		case dns.TypeA:
			add("A 93.184.216.%d", i+1)
		case dns.TypeAAAA:
			add("AAAA 2606:2800:220:1::%d", i+1)
		case dns.TypeMX:
			add("MX %d mail%d.example.net.", 10*i, i)
		case dns.TypeTXT:
			add(`TXT "%s" "part %d"`, strings.Repeat("v", 40*i), i)
		case dns.TypeNS:
			add("NS ns%d.example.net.", i)
		case dns.TypeHTTPS:
			add("HTTPS %d svc%d.example.net. alpn=h2,h3 port=8443 ipv4hint=93.184.216.%d ipv6hint=2606:2800:220:1::%d", i+1, i, i+1, i+1)
		}
	}
	return all
}

// TestAnswersLikeUnbound asks us and unbound, which forward to the same server,
// the same questions (SECURITY P-18).
func TestAnswersLikeUnbound(t *testing.T) {
	netnstest.Require(t, "unbound")
	serve(t, invented)
	run(t, forward)
	runUnbound(t)
	const names = 2000
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS, dns.TypeNS}
	var mu sync.Mutex
	different := 0
	var asking sync.WaitGroup
	for worker := range 8 {
		asking.Go(func() {
			for i := worker; i < names; i += 8 {
				for _, typ := range types {
					name := fmt.Sprintf("n%d.example.net.", i)
					if err := compare(t.Context(), name, typ); err != nil {
						mu.Lock()
						if different++; different < 10 {
							t.Errorf("%s %s: %v", name, dns.TypeToString[typ], err)
						}
						mu.Unlock()
					}
				}
			}
		})
	}
	asking.Wait()
	t.Logf("%d of %d answers are different", different, names*len(types))
}

func compare(ctx context.Context, name string, typ uint16) error {
	var said [2][]string
	for i, server := range []string{ours, unbound} {
		m, err := ask(ctx, server, name, typ)
		if err != nil {
			return fmt.Errorf("asking %s: %w", server, err)
		}
		said[i] = append(said[i], dns.RcodeToString[m.Rcode])
		for _, rr := range m.Answer {
			// The second that may pass between the two.
			rr.Header().Ttl = (rr.Header().Ttl + 150) / 300 * 300
			said[i] = append(said[i], rr.String())
		}
		slices.Sort(said[i])
	}
	if !slices.Equal(said[0], said[1]) {
		return fmt.Errorf("we say\n  %s\nand unbound\n  %s", strings.Join(said[0], "\n  "), strings.Join(said[1], "\n  "))
	}
	return nil
}

func ask(ctx context.Context, server, name string, typ uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name, typ)
	q.SetEdns0(1232, false)
	c := dns.Client{Timeout: 10 * time.Second, UDPSize: 1232}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err == nil && m.Truncated {
		c.Net = "tcp"
		m, _, err = c.ExchangeContext(ctx, q, server)
	}
	return m, err
}

// runUnbound starts unbound as a forwarder to authority, until the test ends.
func runUnbound(t *testing.T) {
	t.Helper()
	host, port, _ := net.SplitHostPort(unbound)
	dir := t.TempDir()
	file := filepath.Join(dir, "unbound.conf")
	config := fmt.Sprintf(`server:
  interface: %s
  port: %s
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  module-config: "iterator"
  minimal-responses: yes
  rrset-roundrobin: no
  access-control: 127.0.0.0/8 allow
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: %s
`, host, port, dir, strings.Replace(authority, ":", "@", 1))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ready, socket := notifySocket(t)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "unbound", "-d", "-c", file)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		stop()
		<-ended
		if t.Failed() {
			t.Log(out.String())
		}
	})
	if err := awaitReady(ready, ended); err != nil {
		t.Fatal(err)
	}
}
