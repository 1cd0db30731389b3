package configs_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
)

func TestServersAreTyped(t *testing.T) {
	for text, want := range map[string]configs.Server{
		"223.5.5.5":                          {Scheme: "udp", Addr: netip.MustParseAddrPort("223.5.5.5:53")},
		"223.5.5.5:5353":                     {Scheme: "udp", Addr: netip.MustParseAddrPort("223.5.5.5:5353")},
		"udp://223.5.5.5":                    {Scheme: "udp", Addr: netip.MustParseAddrPort("223.5.5.5:53")},
		"2400:3200::1":                       {Scheme: "udp", Addr: netip.MustParseAddrPort("[2400:3200::1]:53")},
		"[2400:3200::1]":                     {Scheme: "udp", Addr: netip.MustParseAddrPort("[2400:3200::1]:53")},
		"[2400:3200::1]:5353":                {Scheme: "udp", Addr: netip.MustParseAddrPort("[2400:3200::1]:5353")},
		"::ffff:223.5.5.5":                   {Scheme: "udp", Addr: netip.MustParseAddrPort("223.5.5.5:53")},
		"[fe80::53%br-lan]:53":               {Scheme: "udp", Addr: netip.MustParseAddrPort("[fe80::53%br-lan]:53")},
		"tcp://8.8.8.8":                      {Scheme: "tcp", Addr: netip.MustParseAddrPort("8.8.8.8:53")},
		"tls://1.1.1.1":                      {Scheme: "tls", Addr: netip.MustParseAddrPort("1.1.1.1:853")},
		"tls://2606:4700:4700::1111":         {Scheme: "tls", Addr: netip.MustParseAddrPort("[2606:4700:4700::1111]:853")},
		"tls://[2606:4700:4700::1111]:8853":  {Scheme: "tls", Addr: netip.MustParseAddrPort("[2606:4700:4700::1111]:8853")},
		"tls://1.1.1.1#Cloudflare-DNS.com.":  {Scheme: "tls", Addr: netip.MustParseAddrPort("1.1.1.1:853"), ServerName: "cloudflare-dns.com"},
		"tls://1.1.1.1:853#one.one.one.one":  {Scheme: "tls", Addr: netip.MustParseAddrPort("1.1.1.1:853"), ServerName: "one.one.one.one"},
		"tls://192.0.2.1#bücher.example":     {Scheme: "tls", Addr: netip.MustParseAddrPort("192.0.2.1:853"), ServerName: "xn--bcher-kva.example"},
		"tls://[2400:3200::1]:853#alidns.cn": {Scheme: "tls", Addr: netip.MustParseAddrPort("[2400:3200::1]:853"), ServerName: "alidns.cn"},
	} {
		t.Run(text, func(t *testing.T) {
			want.Text = text
			cfg := mustParse(t, fmt.Sprintf("[side.domestic]\nservers = [%q]\n", text))
			if diff := cmp.Diff([]configs.Server{want}, cfg.Sides[0].Servers, sameConfig); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNameMatchesAreTyped(t *testing.T) {
	for text, want := range map[string]configs.NameMatch{
		"*":                   {Kind: configs.MatchAll},
		"reverse:10.9.0.0/16": {Kind: configs.MatchReverse, Prefix: netip.MustParsePrefix("10.9.0.0/16")},
		"reverse:fd00::1":     {Kind: configs.MatchReverse, Prefix: netip.MustParsePrefix("fd00::1/128")},
		"example.com":         {Kind: configs.MatchSuffix, Name: "example.com."},
		"Example.COM.":        {Kind: configs.MatchSuffix, Name: "example.com."},
		"domain:example.com":  {Kind: configs.MatchSuffix, Name: "example.com."},
		"cn":                  {Kind: configs.MatchSuffix, Name: "cn."},
		"中国":                  {Kind: configs.MatchSuffix, Name: "xn--fiqs8s."},
		"例子。中国":               {Kind: configs.MatchSuffix, Name: "xn--fsqu00a.xn--fiqs8s."},
		"BÜCHER.example":      {Kind: configs.MatchSuffix, Name: "xn--bcher-kva.example."},
		"_dmarc.example.com":  {Kind: configs.MatchSuffix, Name: "_dmarc.example.com."},
		`x\\.y.example.com`:   {Kind: configs.MatchSuffix, Name: `x\.y.example.com.`},
		"full:www.Example.cn": {Kind: configs.MatchFull, Name: "www.example.cn."},
		"keyword:AdServer":    {Kind: configs.MatchKeyword, Text: "adserver"},
		"list:cn-domains":     {Kind: configs.MatchList, Text: "cn-domains"},
	} {
		t.Run(text, func(t *testing.T) {
			last := ""
			if text != "*" {
				last = `{ match = "*", ask = "auto" },`
			}
			cfg := mustParse(t, "[decide]\nnames = [ { match = \""+text+"\", ask = \"auto\" }, "+last+" ]\n")
			if diff := cmp.Diff([]configs.NameMatch{want}, cfg.Decide.Names[0].Match, sameConfig); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRegexpIsCompiled(t *testing.T) {
	cfg := mustParse(t, `[decide]
names = [ { match = 'regexp:^ad[0-9]+\.', answer = "block" }, { match = "*", ask = "auto" } ]
`)
	re := cfg.Decide.Names[0].Match[0].Regexp
	if !re.MatchString("ad12.example.com") || re.MatchString("bad12.example.com") {
		t.Errorf("%s does not match what it says", re)
	}
}

func TestAnswersAreTyped(t *testing.T) {
	for text, want := range map[string]configs.Answer{
		`"nxdomain"`:                      {Kind: configs.AnswerNXDomain},
		`"null"`:                          {Kind: configs.AnswerNull},
		`"nodata"`:                        {Kind: configs.AnswerNoData},
		`"refused"`:                       {Kind: configs.AnswerRefused},
		`"block"`:                         {Kind: configs.AnswerBlock},
		`"192.0.2.1"`:                     {Kind: configs.AnswerAddress, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		`["192.0.2.1", "2001:db8::1"]`:    {Kind: configs.AnswerAddress, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
		`"cname:Safe.Search.example.com"`: {Kind: configs.AnswerCNAME, Target: "safe.search.example.com."},
	} {
		t.Run(text, func(t *testing.T) {
			cfg := mustParse(t, `[decide]
names = [ { match = "example.com", answer = `+text+` }, { match = "*", ask = "auto" } ]
`)
			if diff := cmp.Diff(want, cfg.Decide.Names[0].Answer, sameConfig); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAddressMatchesAreTyped(t *testing.T) {
	cfg := mustParse(t, `[list.office]
file = "/etc/smartdns/office.txt"
[decide]
addresses = [
  { match = ["private", "home", "203.0.113.0/24", "192.0.2.1", "2001:db8::/32", "list:office"], via = "direct" },
  { match = "*", via = "direct" },
]
`)
	want := []configs.AddressMatch{
		{Kind: configs.AddrPrivate},
		{Kind: configs.AddrHome},
		{Kind: configs.AddrPrefix, Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		{Kind: configs.AddrPrefix, Prefix: netip.MustParsePrefix("192.0.2.1/32")},
		{Kind: configs.AddrPrefix, Prefix: netip.MustParsePrefix("2001:db8::/32")},
		{Kind: configs.AddrList, List: "office"},
	}
	if diff := cmp.Diff(want, cfg.Decide.Addresses[0].Match, sameConfig); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
