package cache_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
)

// sealed returns a packed answer with its OPT, as the resolver seals it.
func sealed(t testing.TB, name string, ttl uint32) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Response, m.RecursionAvailable, m.Compress, m.AuthenticatedData = true, true, true, true
	m.Answer = []dns.RR{
		&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: ttl + 9}, Target: "cdn.example.net."},
		&dns.A{Hdr: dns.RR_Header{Name: "cdn.example.net.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.IPv4(192, 0, 2, 1)},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire.AppendOPT(b, false, -1, "")
}

type asked struct {
	name         string
	id           uint16
	edns, do, cd bool
	rd, ad       bool
	size         uint16
}

func (a asked) query(t testing.TB) wire.Query {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(a.name, dns.TypeA)
	m.Id, m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = a.id, a.rd, a.cd, a.ad
	if a.edns || a.do {
		m.SetEdns0(max(a.size, 512), a.do)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q, action, _ := wire.ParseQuery(b)
	if action != wire.Accept {
		t.Fatalf("%v is not accepted", a)
	}
	return q
}

func unpack(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

func newSealed(capacity int) *cache.Sealed {
	return cache.NewSealed(capacity, &cache.Generation{})
}

func TestSealedAnswerHasTheAskersFormAndItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSealed(0)
		if !s.Put(cache.Seal{Msg: sealed(t, "www.example.com.", 300), Life: 270 * time.Second}) {
			t.Fatal("not sealed")
		}
		time.Sleep(100*time.Second + 700*time.Millisecond)
		for _, a := range []asked{
			{name: "www.example.com.", id: 7, rd: true},
			{name: "wWw.eXaMpLe.cOm.", id: 8, rd: true, edns: true, size: 1232},
			{name: "WWW.EXAMPLE.COM.", id: 9, rd: true, ad: true},
		} {
			reply, ok := s.Answer(nil, a.query(t), 0, a.query(t).Limit(), s.Now())
			if !ok {
				t.Errorf("%v: no answer", a)
				continue
			}
			m := unpack(t, reply)
			switch {
			case m.Id != a.id, !m.RecursionDesired, !m.RecursionAvailable, m.Authoritative, m.AuthenticatedData != a.ad:
				t.Errorf("%v: header %v", a, m.MsgHdr)
			case m.Question[0].Name != a.name, m.Answer[0].Header().Name != a.name:
				t.Errorf("%v: spelled %s and %s", a, m.Question[0].Name, m.Answer[0].Header().Name)
			case m.Answer[0].Header().Ttl != 209, m.Answer[1].Header().Ttl != 200:
				t.Errorf("%v: TTLs after 100.7 s: %v", a, m.Answer)
			case (m.IsEdns0() != nil) != a.edns, len(m.Extra) > 1:
				t.Errorf("%v: additional %v", a, m.Extra)
			}
		}
		time.Sleep(169*time.Second + 300*time.Millisecond)
		if _, ok := s.Answer(nil, asked{name: "www.example.com.", rd: true}.query(t), 0, wire.MaxUDP, s.Now()); ok {
			t.Error("given at the end of its life")
		}
	})
}

func TestSealedAnswerIsForTheSameQuestionOnly(t *testing.T) {
	s := newSealed(0)
	s.Put(cache.Seal{View: 3, Msg: sealed(t, "www.example.com.", 300), Life: time.Minute})
	yes := asked{name: "www.example.com.", rd: true}
	if _, ok := s.Answer(nil, yes.query(t), 3, wire.MaxUDP, s.Now()); !ok {
		t.Fatal("no answer at all")
	}
	for why, a := range map[string]asked{
		"another name": {name: "ww.example.com.", rd: true}, "DO": {name: yes.name, rd: true, do: true},
		"CD": {name: yes.name, rd: true, cd: true}, "no RD": {name: yes.name},
	} {
		if _, ok := s.Answer(nil, a.query(t), 3, wire.MaxUDP, s.Now()); ok {
			t.Errorf("given to a query with %s", why)
		}
	}
	if _, ok := s.Answer(nil, yes.query(t), 0, wire.MaxUDP, s.Now()); ok {
		t.Error("given to another view")
	}
}

func TestSealedAnswerIsCutToWhatTheClientTakes(t *testing.T) {
	m := new(dns.Msg)
	m.SetQuestion("many.example.com.", dns.TypeA)
	m.Response, m.Compress = true, true
	for i := range 50 {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "many.example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, byte(i))})
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	s := newSealed(0)
	if !s.Put(cache.Seal{Msg: wire.AppendOPT(b, false, 3, "a reason"), Life: time.Minute}) {
		t.Fatal("not sealed")
	}
	for _, c := range []struct {
		a       asked
		cut     bool
		options int
	}{
		{asked{name: "many.example.com.", rd: true}, true, -1},
		{asked{name: "many.example.com.", rd: true, edns: true, size: 600}, true, 1},
		{asked{name: "many.example.com.", rd: true, edns: true, size: 1232}, false, 1},
	} {
		reply, ok := s.Answer([]byte("before"), c.a.query(t), 0, c.a.query(t).Limit(), s.Now())
		if !ok || !bytes.HasPrefix(reply, []byte("before")) {
			t.Fatalf("%v: %v, %q", c.a, ok, reply)
		}
		m := unpack(t, reply[6:])
		options := -1
		if o := m.IsEdns0(); o != nil {
			options = len(o.Option)
		}
		if m.Truncated != c.cut || (len(m.Answer) == 0) != c.cut || options != c.options {
			t.Errorf("%v: TC %v, %d answers, %d options", c.a, m.Truncated, len(m.Answer), options)
		}
	}
}

func TestNothingSealedOutlivesItsGeneration(t *testing.T) {
	gen := &cache.Generation{}
	s := cache.NewSealed(0, gen)
	q := asked{name: "www.example.com.", rd: true}.query(t)
	old := gen.Now()
	s.Put(cache.Seal{Msg: sealed(t, "www.example.com.", 300), Life: time.Minute, Generation: old})
	gen.Advance()
	if _, ok := s.Answer(nil, q, 0, wire.MaxUDP, s.Now()); ok {
		t.Error("given after the generation advanced")
	}
	if s.Put(cache.Seal{Msg: sealed(t, "www.example.com.", 300), Life: time.Minute, Generation: old}) {
		t.Error("sealed by a decision of before")
	}
	if !s.Put(cache.Seal{Msg: sealed(t, "www.example.com.", 300), Life: time.Minute, Generation: gen.Now()}) {
		t.Error("not sealed again")
	}
	s.Flush()
	if _, ok := s.Answer(nil, q, 0, wire.MaxUDP, s.Now()); ok || s.Stats().Entries != 0 {
		t.Errorf("after a flush: %+v", s.Stats())
	}
}

// What is learned about a name unseals what was decided by it, and next to
// nothing else.
func TestSealedOutlivesWhatIsLearnedOfOthers(t *testing.T) {
	s := newSealed(0)
	put := func(name string, decided ...string) bool {
		a := cache.Seal{Msg: sealed(t, name, 300), Life: time.Hour, Generation: s.Generation().Now()}
		for _, d := range decided {
			l, state := s.Learned(d)
			a.Learned = append(a.Learned, l)
			a.Generation += state
		}
		return s.Put(a)
	}
	given := func(name string) bool {
		reply, ok := s.Answer(nil, asked{name: name, rd: true}.query(t), 0, wire.MaxUDP, s.Now())
		return ok && unpack(t, reply).Answer[1].Header().Ttl == 300
	}
	const others = 500
	for i := range others {
		name := fmt.Sprintf("n%d.example.com.", i)
		put(name, name)
	}
	for range 3 {
		if !put("flip.example.com.", "flip.example.com.") || !put("www.example.com.", "www.example.com.", "flip.example.com.") || !put("listed.example.com.") {
			t.Fatal("not sealed")
		}
		for _, name := range []string{"flip.example.com.", "www.example.com.", "listed.example.com."} {
			if !given(name) {
				t.Errorf("%s is not given", name)
			}
		}
		s.Turned("flip.example.com.")
		if given("flip.example.com.") || given("www.example.com.") || !given("listed.example.com.") {
			t.Error("what was decided by the name is given, or what was not is gone")
		}
	}
	kept := 0
	for i := range others {
		if given(fmt.Sprintf("n%d.example.com.", i)) {
			kept++
		}
	}
	if kept < others*9/10 {
		t.Errorf("%d of %d answers that have nothing to do with the name are left", kept, others)
	}
	old, state := s.Learned("late.example.com.")
	s.Turned("late.example.com.")
	if s.Put(cache.Seal{Msg: sealed(t, "late.example.com.", 300), Life: time.Hour, Generation: s.Generation().Now() + state, Learned: []cache.Learned{old}}) {
		t.Error("sealed by what was known before")
	}
}

func TestSealedKeepsItsCapAndWhatIsAskedFor(t *testing.T) {
	const capacity = 2 << 20
	s := newSealed(capacity)
	hot := make([]wire.Query, 200)
	for i := range hot {
		name := fmt.Sprintf("hot%d.example.com.", i)
		hot[i] = asked{name: name, rd: true}.query(t)
		s.Put(cache.Seal{Msg: sealed(t, name, 300), Life: time.Hour})
	}
	kept := len(hot)
	for i := range 40_000 {
		s.Put(cache.Seal{Msg: sealed(t, fmt.Sprintf("%d.flood.example.com.", i), 300), Life: time.Hour})
		if i%1000 == 0 {
			kept = 0
			for _, q := range hot {
				if _, ok := s.Answer(nil, q, 0, wire.MaxUDP, s.Now()); ok {
					kept++
				}
			}
			if st := s.Stats(); st.Bytes > st.Capacity || st.Capacity > capacity {
				t.Fatalf("%+v of %d", st, capacity)
			}
		}
	}
	if st := s.Stats(); kept != len(hot) || st.Evicted == 0 || st.Entries < 8000 {
		t.Errorf("%d of %d hot names left; %+v", kept, len(hot), st)
	}
}

// The index is right whatever comes and goes: what it gives is what was sealed
// last for that name.
func TestSealedGivesWhatWasSealedLast(t *testing.T) {
	s := newSealed(0)
	last := map[string]uint32{}
	for i := range 60_000 {
		name := fmt.Sprintf("%d.example.com.", i*7919%9000)
		last[name] = uint32(i)
		s.Put(cache.Seal{Msg: sealed(t, name, uint32(i)), Life: time.Hour})
	}
	found := 0
	for name, ttl := range last {
		reply, ok := s.Answer(nil, asked{name: name, rd: true}.query(t), 0, wire.MaxUDP, s.Now())
		if !ok {
			continue
		}
		found++
		if got := unpack(t, reply).Answer[1].Header().Ttl; got != ttl {
			t.Fatalf("%s: sealed last with %d, got %d", name, ttl, got)
		}
	}
	if found < 4000 {
		t.Errorf("%d of %d names are left in 1 MiB", found, len(last))
	}
}

func TestSealedHitDoesNotAllocate(t *testing.T) {
	s := newSealed(0)
	s.Put(cache.Seal{Msg: sealed(t, "www.example.com.", 300), Life: time.Hour})
	q := asked{name: "Www.example.com.", rd: true, edns: true, size: 1232}.query(t)
	dst := make([]byte, 0, cache.MaxSealed)
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := s.Answer(dst, q, 0, wire.MaxUDP, s.Now()); !ok {
			t.Fatal("no answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations a hit", n)
	}
}

func TestWhatCannotBeSealedIsNot(t *testing.T) {
	s := newSealed(0)
	long := sealed(t, "www.example.com.", 300)
	m := unpack(t, long)
	m.Extra = nil
	for len(m.Answer) < 40 {
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "www.example.com.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{strings.Repeat("x", 99)}})
	}
	big, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for why, a := range map[string]cache.Seal{
		"no life": {Msg: long}, "less than a second": {Msg: long, Life: time.Second - 1}, "too large": {Msg: big, Life: time.Hour},
		"no message": {Life: time.Hour}, "a header": {Msg: long[:12], Life: time.Hour},
	} {
		if s.Put(a) {
			t.Errorf("sealed: %s", why)
		}
	}
}

func BenchmarkSealedHit(b *testing.B) {
	for _, names := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(names), func(b *testing.B) {
			s := newSealed(64 << 20)
			queries := make([]wire.Query, names)
			for i := range queries {
				name := fmt.Sprintf("host%d.example.com.", i)
				queries[i] = asked{name: name, rd: true, edns: true, size: 1232}.query(b)
				s.Put(cache.Seal{Msg: sealed(b, name, 300), Life: time.Hour})
			}
			dst := make([]byte, 0, cache.MaxSealed)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := s.Answer(dst, queries[i*7919%names], 0, wire.MaxUDP, s.Now()); !ok {
					b.Fatal("no answer")
				}
			}
		})
	}
}
