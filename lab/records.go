package lab

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// commonRecords are the same for everybody.
const commonRecords = `
www.baidu.com.           A     39.156.66.10
www.baidu.com.           AAAA  2400:da00::66:10
www.qq.com.              A     39.156.67.1
www.taobao.com.       60 CNAME www.taobao.com.danuoyi.tbcache.com.
www.taobao.com.danuoyi.tbcache.com. 60 A 39.156.68.1
www.example.com.         A     93.184.216.34
www.example.com.         AAAA  2606:2800:220:1:248:1893:25c8:1946
www.example.com.         HTTPS 1 . alpn=h3,h2 ipv4hint=93.184.217.34 ipv6hint=2606:2800:220:1::17:34
v4.foreign.test.         A     93.184.218.4
v6.foreign.test.         AAAA  2606:2800:220:1::6
chain.foreign.test.      CNAME chain2.foreign.test.
chain2.foreign.test.  30 CNAME chain3.foreign.test.
chain3.foreign.test.     A     93.184.218.5
many.foreign.test.       A     93.184.219.1
many.foreign.test.       A     93.184.219.2
many.foreign.test.       A     93.184.219.3
many.foreign.test.       A     93.184.219.4
mixed.test.              A     39.156.69.1
mixed.test.              A     93.184.218.9
attacker.cn.test.        A     93.184.216.34
private.foreign.test.    A     192.168.8.1
private.foreign.test.    A     93.184.218.6
teredo.foreign.test.     AAAA  2001::1f0d:5e01
endpoint.foreign.test.   A     45.76.1.2
nodata.foreign.test.     TXT   "no address"
`

// homeRecords are what the domestic servers alone say. A name below near.
// replaces its twin for whoever asks from home, or with a client subnet there.
const homeRecords = `
www.cdn.test.            A     39.156.70.1
near.www.cdn.test.       A     39.156.70.1
img.cdn.test.            CNAME img.cdn.example.net.
img.cdn.example.net.     A     39.156.70.2
near.img.cdn.example.net. A    39.156.70.2
cross.cn.test.           CNAME www.bank.test.
www.bank.test.           A     203.98.7.66
lost.foreign.test.       A     39.156.71.1
`

// abroadRecords are what the clean servers say.
const abroadRecords = `
www.google.com.          A     142.250.72.196
www.google.com.          AAAA  2607:f8b0:4005:80a::2004
www.facebook.com.        A     157.240.22.35
www.facebook.com.        AAAA  2a03:2880:f131:83:face:b00c:0:25de
www.twitter.com.         A     93.184.220.70
www.youtube.com.         A     142.250.72.110
vpn.provider.test.       A     45.76.1.2
www.cdn.test.            A     93.184.221.1
img.cdn.test.            CNAME img.cdn.example.net.
img.cdn.example.net.     A     93.184.221.2
cross.cn.test.           CNAME www.bank.test.
www.bank.test.           A     93.184.216.40
lost.foreign.test.       A     93.184.218.7
`

// largeRecord fits no datagram of 1,232 bytes.
func largeRecord() string {
	return "large.foreign.test. TXT " + strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 12)
}

func addressRecords(v4, v6 netip.Addr) []dns.RR {
	h := dns.RR_Header{Class: dns.ClassINET, Ttl: defaultTTL}
	var rrs []dns.RR
	if v4.IsValid() {
		h.Rrtype = dns.TypeA
		rrs = append(rrs, &dns.A{Hdr: h, A: v4.AsSlice()})
	}
	if v6.IsValid() {
		h.Rrtype = dns.TypeAAAA
		rrs = append(rrs, &dns.AAAA{Hdr: h, AAAA: v6.AsSlice()})
	}
	return rrs
}

func netIPs(as ...netip.Addr) []net.IP {
	var out []net.IP
	for _, a := range as {
		out = append(out, a.AsSlice())
	}
	return out
}
