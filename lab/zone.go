package lab

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// View is who is asked: the same name may have another answer at home.
type View uint8

// The views.
const (
	AtHome View = iota // the domestic DNS servers
	Abroad             // the clean ones
	numViews
)

// Zone is all the lab's names. Its methods may be called concurrently.
//
// Besides the names of records.go there are numbered ones; N is decimal, from 1
// to MaxNumber, leading zeros allowed:
//
//	nN.foreign.test   A 93.184.x.y, AAAA, HTTPS whose hints are other addresses
//	nN.cn.test        A 39.156.x.y, AAAA, HTTPS
//	nN.cdn.test       as nN.cn.test for who asks from home, else nN.foreign.test
//	nN.blocked.test   as nN.foreign.test, on the poison list
//
// ttlS.NAME is NAME with a TTL of S seconds.
type Zone struct {
	mu       sync.RWMutex // guards following
	records  [numViews]map[string][]dns.RR
	poisoned map[string]bool
	anyName  func(name string) (home, ok bool)
}

// MaxNumber is the largest N of the numbered names.
const MaxNumber = 12_000

// defaultTTL is that of generated records, in seconds.
const defaultTTL = 300

func newZone() (*Zone, error) {
	z := &Zone{poisoned: map[string]bool{}}
	for v := range z.records {
		z.records[v] = map[string][]dns.RR{}
	}
	for text, views := range map[string][]View{
		commonRecords: {AtHome, Abroad}, homeRecords: {AtHome}, abroadRecords: {Abroad}, largeRecord(): {AtHome, Abroad},
	} {
		for _, v := range views {
			if err := z.Add(v, text); err != nil {
				return nil, err
			}
		}
	}
	z.Poison("google.com", "facebook.com", "twitter.com", "youtube.com", "blocked.test", "provider.test")
	return z, nil
}

// Add adds records, in the text of a zone file, to what one view answers.
func (z *Zone) Add(v View, text string) error {
	p := dns.NewZoneParser(strings.NewReader(text), ".", "lab")
	p.SetDefaultTTL(defaultTTL)
	z.mu.Lock()
	defer z.mu.Unlock()
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		name := strings.ToLower(rr.Header().Name)
		z.records[v][name] = append(z.records[v][name], rr)
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("adding records: %w", err)
	}
	return nil
}

// Remove removes what Add added for a name.
func (z *Zone) Remove(v View, name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records[v], canonical(name))
}

// Poison puts names, and all below them, on the poison list.
func (z *Zone) Poison(names ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, n := range names {
		z.poisoned[canonical(n)] = true
	}
}

// Poisoned reports whether name is on the poison list.
func (z *Zone) Poisoned(name string) bool {
	z.mu.RLock()
	defer z.mu.RUnlock()
	for n := canonical(name); ; {
		if z.poisoned[n] {
			return true
		}
		i, end := dns.NextLabel(n, 0)
		if end {
			return false
		}
		n = n[i:]
	}
}

// AnswerAll makes every name outside "test." that has no records resolve, to an
// address that follows from the name: at home if home reports true, abroad
// otherwise. nil, the state at start, makes them NXDOMAIN.
func (z *Zone) AnswerAll(home func(name string) bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.anyName = nil
	if home != nil {
		z.anyName = func(name string) (bool, bool) { return home(name), !strings.HasSuffix(name, ".test.") }
	}
}

// asker is where a question comes from.
type asker struct {
	view View
	near bool // from home, or with a client subnet at home
}

// lookup returns the records that answer name, along its CNAMEs.
func (z *Zone) lookup(by asker, name string, qtype uint16) (answer []dns.RR, rcode int) {
	for range 9 {
		rrs, exists := z.at(by, name)
		if !exists {
			return answer, dns.RcodeNameError
		}
		target := ""
		for _, rr := range rrs {
			switch {
			case rr.Header().Rrtype == qtype:
				answer = append(answer, owned(rr, name))
			case rr.Header().Rrtype == dns.TypeCNAME:
				answer = append(answer, owned(rr, name))
				target = rr.(*dns.CNAME).Target
			}
		}
		if target == "" {
			return answer, dns.RcodeSuccess
		}
		name = target
	}
	return answer, dns.RcodeServerFailure
}

// owned gives a copy of rr the name as it was asked.
func owned(rr dns.RR, name string) dns.RR {
	c := dns.Copy(rr)
	c.Header().Name = name
	return c
}

// at returns all records of a name.
func (z *Zone) at(by asker, asked string) (rrs []dns.RR, exists bool) {
	name := canonical(asked)
	if ttl, rest, ok := ttlPrefix(name); ok {
		rrs, exists = z.at(by, rest)
		for i, rr := range rrs {
			rrs[i] = dns.Copy(rr)
			rrs[i].Header().Ttl = ttl
		}
		return rrs, exists
	}
	if by.view == AtHome && z.Poisoned(name) {
		return addressRecords(ForgedV4, ForgedV6), true
	}
	if n, family, ok := numbered(name); ok {
		return numberedRecords(n, family == "cn" || family == "cdn" && by.near), true
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	if rrs, ok := z.records[by.view][name]; ok {
		rrs = append([]dns.RR(nil), rrs...)
		if twin, ok := z.records[AtHome]["near."+name]; ok && by.near {
			return append([]dns.RR(nil), twin...), true
		}
		return rrs, true
	}
	if z.anyName != nil {
		if home, ok := z.anyName(name); ok {
			h := fnv.New32a()
			h.Write([]byte(name))
			return numberedRecords(1+int(h.Sum32()%MaxNumber), home), true
		}
	}
	return nil, false
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func ttlPrefix(name string) (ttl uint32, rest string, ok bool) {
	s, ok := strings.CutPrefix(name, "ttl")
	if !ok {
		return 0, "", false
	}
	digits, rest, ok := strings.Cut(s, ".")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), rest, ok && err == nil
}

// numbered splits "n7.foreign.test." into 7 and "foreign".
func numbered(name string) (n int, family string, ok bool) {
	s, ok := strings.CutPrefix(name, "n")
	if !ok {
		return 0, "", false
	}
	digits, rest, _ := strings.Cut(s, ".")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > MaxNumber {
		return 0, "", false
	}
	switch family, _ = strings.CutSuffix(rest, ".test."); family {
	case "foreign", "cn", "cdn", "blocked":
		return n, family, true
	}
	return 0, "", false
}

// NumberedAddr returns the address of nN.cn.test (home) or nN.foreign.test.
func NumberedAddr(n int, home, v6 bool) netip.Addr {
	switch {
	case home && v6:
		return netip.AddrFrom16([16]byte{0x24, 0, 0xda, 0, 9: 1, 14: byte(n >> 8), 15: byte(n)})
	case home:
		return netip.AddrFrom4([4]byte{39, 156, byte(n >> 8), byte(n)})
	case v6:
		return netip.AddrFrom16([16]byte{0x26, 0x06, 0x28, 0, 0x02, 0x20, 0, 1, 9: 1, 14: byte(n >> 8), 15: byte(n)})
	}
	return netip.AddrFrom4([4]byte{93, 184, byte(n >> 8), byte(n)})
}

// NumberedHint returns the address hint in the HTTPS record of the same name.
func NumberedHint(n int, home, v6 bool) netip.Addr { return NumberedAddr(n+30_000, home, v6) }

func numberedRecords(n int, home bool) []dns.RR {
	rrs := addressRecords(NumberedAddr(n, home, false), NumberedAddr(n, home, true))
	return append(rrs, &dns.HTTPS{SVCB: dns.SVCB{
		Hdr:      dns.RR_Header{Rrtype: dns.TypeHTTPS, Class: dns.ClassINET, Ttl: defaultTTL},
		Priority: 1, Target: ".",
		Value: []dns.SVCBKeyValue{
			&dns.SVCBAlpn{Alpn: []string{"h3", "h2"}},
			&dns.SVCBIPv4Hint{Hint: netIPs(NumberedHint(n, home, false))},
			&dns.SVCBIPv6Hint{Hint: netIPs(NumberedHint(n, home, true))},
		},
	}})
}
