package list_test

import (
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestDnsmasq(t *testing.T) {
	runParser(t, list.Dnsmasq, "server=/padding.cn/1.2.3.4", []parserTest{
		{"several names", "server=/a.com/b.com/1.2.3.4#53 # x\n--address=/*.c.com/0.0.0.0\nlocal=/d.com/\nnftset=/e.com/4#inet#t#s", []string{
			"1 suffix a.com.", "1 suffix b.com.", "2 suffix c.com.", "3 suffix d.com.", "4 suffix e.com.",
		}},
		{"what is asked as everything else is an exception", "server=/a.com/1.2.3.4\nserver=/b.a.com/c.a.com/#", []string{
			"1 suffix a.com.", "2 not suffix b.a.com.", "2 not suffix c.a.com.",
		}},
		{"other options", "no-resolv\ncache-size=1000\nserver=1.2.3.4\nbogus-nxdomain=1.2.3.4", []string{"1 dropped", "2 dropped", "3 dropped", "4 dropped"}},
		{"other formats", "a.com\nfull:b.com\n1.2.3.0/24\nerror", []string{"1 bad", "2 bad", "3 bad", "4 bad"}},
		{"all names", "server=//1.2.3.4\naddress=/#/0.0.0.0", []string{"1 dropped", "2 dropped"}},
	})
}

func TestHosts(t *testing.T) {
	runParser(t, list.Hosts, "0.0.0.0 padding.cn", []parserTest{
		{"names", "0.0.0.0 a.com\n127.0.0.1\tb.com c.com # d.com\n::1 e.com", []string{"1 full a.com.", "2 full b.com.", "2 full c.com.", "3 full e.com."}},
		{"the host's own names", "127.0.0.1 localhost localhost.localdomain\n255.255.255.255 broadcasthost\nfe80::1%lo0 localhost\n0.0.0.0 0.0.0.0\n127.0.0.1 top", []string{
			"1 dropped", "1 dropped", "2 dropped", "3 dropped", "4 dropped", "5 dropped",
		}},
		{"no names of a hosts file", "a.com\n1.2.3 a.com\n1.2.3.4 #a.com\n0.0.0.0 1.2.3.4", []string{"1 bad", "2 bad", "3 bad", "4 bad"}},
	})
}

func FuzzDnsmasq(f *testing.F) {
	f.Add("server=/a.com/b.com/114.114.114.114\n--local=/c.com/\nno-resolv\nserver=/d.a.com/#\n")
	f.Add("address=/#/1.1.1.1\nipset=//x\nnftset=/a/\n")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, text, list.Dnsmasq(strings.NewReader(text))) })
}

func FuzzHosts(f *testing.F) {
	f.Add("127.0.0.1 localhost\n0.0.0.0 a.com b.com # c\n::1\tip6-loopback x.y\n")
	f.Add("fe80::1%lo0 localhost\n1.2.3.4\n0.0.0.0 0.0.0.0\n")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, text, list.Hosts(strings.NewReader(text))) })
}
