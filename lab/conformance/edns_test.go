package conformance_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/lab/netnstest"
)

// check is one question and what its reply must be. What follows from the
// arguments themselves (OPT, DO, CD, AD, the cookie) is read from them.
type check struct {
	name, args string
	want       want
}

type want struct {
	rcode  int
	soa    bool // the answer has one
	signed bool // and signatures
	bare   bool // nothing but a header, with all flags clear but QR
	tc     bool
	max    int // octets; 0: no limit
	count  int // records in the answer; 0: not looked at
}

func (c check) sent(option string) bool { return slices.Contains(strings.Fields(c.args), option) }

// checks are those of ISC's genreport for a recursive server (groups EDNS,
// FULL and COMM), without the TSIG one.
func checks() []check {
	const (
		edns0 = "+edns=0 +nocookie +noad "
		edns1 = "+edns=1 +noednsneg +nocookie +noad "
		plain = "+noedns +noad "
	)
	soa, signed := want{soa: true}, want{soa: true, signed: true}
	badvers, notimp := want{rcode: dns.RcodeBadVers}, want{rcode: dns.RcodeNotImplemented, bare: true}
	return []check{
		{"dns", plain + "SOA", soa},
		{"edns", edns0 + "SOA", soa},
		{"edns1", edns1 + "SOA", badvers},
		{"edns@512", edns0 + "+dnssec +ignore +bufsize=512 DNSKEY", want{max: 512, tc: true}},
		{"ednsopt", edns0 + "+ednsopt=100 SOA", soa},
		{"edns1opt", edns1 + "+ednsopt=100 SOA", badvers},
		{"do", edns0 + "+dnssec SOA", signed},
		{"ednsflags", edns0 + "+ednsflags=0x0080 SOA", soa},
		{"optlist", "+edns=0 +noad +nsid +subnet=0.0.0.0/0 +expire " + cookie + " SOA", soa},
		{"ednstcp", edns0 + "+dnssec +bufsize=512 +tcp DNSKEY", want{count: 7, signed: true}},
		{"aa", plain + "+aaflag SOA", soa},
		{"ad", "+noedns +ad SOA", soa},
		{"cd", plain + "+cd SOA", soa},
		{"ra", plain + "+raflag SOA", soa},
		{"rd", plain + "+rec SOA", soa},
		{"tc", plain + "+tcflag SOA", soa},
		{"zflag", plain + "+zflag SOA", soa},
		{"opcode", plain + "+norec +header-only +opcode=15", notimp},
		{"opcodeflg", "+noedns +header-only +opcode=15 +tcflag +rec +raflag +cd +ad +aaflag +zflag", notimp},
		{"type666", plain + "TYPE666", want{}},
		{"tcp", plain + "+tcp SOA", soa},
		{"docd", edns0 + "+dnssec +cd SOA", signed},
		{"edns1do", edns1 + "+dnssec SOA", badvers},
		{"ednsnsid", edns0 + "+nsid SOA", soa},
		{"ednscookie", "+edns=0 +noad " + cookie + " SOA", soa},
		{"ednsexpire", edns0 + "+expire SOA", soa},
		{"ednssubnet", edns0 + "+subnet=0.0.0.0/0 SOA", soa},
		{"edns1nsid", edns1 + "+nsid SOA", badvers},
		{"edns1cookie", "+edns=1 +noednsneg +noad " + cookie + " SOA", badvers},
		{"edns1expire", edns1 + "+expire SOA", badvers},
		{"edns1subnet", edns1 + "+subnet=0.0.0.0/0 SOA", badvers},
		{"bind11", "+edns=0 " + cookie + " +noad +dnssec SOA", signed},
		{"dig11", "+edns=0 " + cookie + " +ad SOA", soa},
	}
}

const cookie = "+cookie=0102030405060708"

// types are all that must get an answer or a NODATA, and never an error.
const types = `A NS MD MF CNAME SOA MB MG MR NULL WKS PTR HINFO MINFO MX TXT RP AFSDB X25 ISDN RT NSAP NSAP-PTR SIG KEY
PX GPOS AAAA LOC NXT SRV NAPTR KX CERT A6 DNAME APL DS SSHFP IPSECKEY RRSIG NSEC DNSKEY DHCID NSEC3 NSEC3PARAM TLSA
SMIMEA HIP CDS CDNSKEY OPENPGPKEY SPF NID L32 L64 LP EUI48 EUI64 URI CAA AVC DOA DLV SVCB HTTPS TYPE1000`

// TestAnswersLikeTheStandardsSay asks with dig what ISC's compliance test asks
// (SECURITY P-01), each twice: once of the authority, once of the cache.
func TestAnswersLikeTheStandardsSay(t *testing.T) {
	netnstest.Require(t, "dig")
	serveZone(t)
	run(t, forward)
	all := checks()
	for _, typ := range strings.Fields(types) {
		all = append(all, check{"type " + typ, "+noedns +noad +ignore " + typ, want{soa: typ == "SOA", tc: typ == "DNSKEY"}})
	}
	passed := 0
	for _, c := range all {
		ok := true
		for _, from := range []string{"authority", "cache"} {
			args := c.args
			if !strings.Contains(args, "header-only") {
				args += " " + zone
			}
			if err := c.judge(dig(t, args)); err != nil {
				t.Errorf("%s, from the %s: %v\n  dig %s", c.name, from, err, args)
				ok = false
			}
		}
		if ok {
			passed++
		}
	}
	t.Logf("%d of %d checks passed", passed, len(all))
}

// judge returns what is wrong with a reply.
func (c check) judge(raw []byte) error {
	var m dns.Msg
	if err := m.Unpack(raw); err != nil {
		return fmt.Errorf("%d octets that are no message: %w", len(raw), err)
	}
	w := c.want
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Rcode != w.rcode || m.Truncated != w.tc || !m.Response || m.Authoritative || m.Zero {
		wrong("rcode %s TC=%t QR=%t AA=%t Z=%t, want %s TC=%t and no more", dns.RcodeToString[m.Rcode],
			m.Truncated, m.Response, m.Authoritative, m.Zero, dns.RcodeToString[w.rcode], w.tc)
	}
	if w.max > 0 && len(raw) > w.max {
		wrong("%d octets, want at most %d", len(raw), w.max)
	}
	if err := c.judgeOPT(m.Extra); err != nil {
		wrong("%w", err)
	}
	if w.bare {
		if m.RecursionAvailable || m.RecursionDesired || m.AuthenticatedData || m.CheckingDisabled || len(raw) != 12 {
			wrong("%d octets, RA=%t RD=%t AD=%t CD=%t, want a bare header", len(raw),
				m.RecursionAvailable, m.RecursionDesired, m.AuthenticatedData, m.CheckingDisabled)
		}
		return errors.Join(errs...)
	}
	if len(m.Question) != 1 || m.Question[0].Name != zone || !m.RecursionAvailable || !m.RecursionDesired {
		wrong("question %v, RA=%t RD=%t", m.Question, m.RecursionAvailable, m.RecursionDesired)
	}
	adMayBe := c.sent("+ad") || c.sent("+dnssec")
	if m.AuthenticatedData && !adMayBe || m.CheckingDisabled != c.sent("+cd") {
		wrong("flags AD=%t CD=%t", m.AuthenticatedData, m.CheckingDisabled)
	}
	has := func(typ uint16) bool {
		return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == typ })
	}
	if has(dns.TypeSOA) != w.soa {
		wrong("a SOA in the answer: %t, want %t", !w.soa, w.soa)
	}
	if has(dns.TypeRRSIG) != w.signed && m.Question[0].Qtype != dns.TypeRRSIG && !w.tc {
		wrong("signatures in the answer: %t, want %t", !w.signed, w.signed)
	}
	if w.count > 0 && len(m.Answer) != w.count {
		wrong("%d records, want %d", len(m.Answer), w.count)
	}
	return errors.Join(errs...)
}

// judgeOPT returns what is wrong with the OPT record: there is one exactly
// when one was sent, of version 0, with DO as sent (RFC 3225 section 3), no
// other flag, and no option that only the client knows but the start of a
// cookie.
func (c check) judgeOPT(extra []dns.RR) error {
	var opts []*dns.OPT
	for _, rr := range extra {
		if o, is := rr.(*dns.OPT); is {
			opts = append(opts, o)
		}
	}
	if c.sent("+noedns") != (len(opts) == 0) || len(opts) > 1 {
		return fmt.Errorf("%d OPT records", len(opts))
	}
	for _, o := range opts {
		if o.Version() != 0 || o.Hdr.Ttl&0x7fff != 0 || o.Do() != c.sent("+dnssec") {
			return fmt.Errorf("EDNS version %d, flags %#x, DO=%t", o.Version(), o.Hdr.Ttl&0x7fff, o.Do())
		}
		for _, option := range o.Option {
			ours, is := option.(*dns.EDNS0_COOKIE)
			if is && c.sent(cookie) && strings.HasPrefix(ours.Cookie, strings.TrimPrefix(cookie, "+cookie=")) {
				continue
			}
			if is || option.Option() == 100 {
				return fmt.Errorf("option %d comes back: %s", option.Option(), option)
			}
		}
	}
	return nil
}
