package list_test

import (
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestListsOfCommands(t *testing.T) {
	runParser(t, list.Prefixes, "1.1.1.1", []parserTest{
		{"ipset", "create chnroute hash:net family inet hashsize 4096 maxelem 65536\nadd chnroute 1.0.1.0/24\nadd chnroute6 2001:250::/35 timeout 0\nadd chnroute 1.0.2.0/24 nomatch\nipset add chnroute 1.0.8.1\n-A chnroute 1.0.3.0/24 -exist\nflush chnroute", []string{
			"2 1.0.1.0/24", "3 2001:250::/35", "4 not 1.0.2.0/24", "5 1.0.8.1/32", "6 1.0.3.0/24",
		}},
		{"ip", "ip route add 1.0.1.0/24 via 192.168.1.1 dev eth0\nip -6 route add 2001:250::/35 via fe80::1", []string{"1 1.0.1.0/24", "2 2001:250::/35"}},
		{"route", "route add -net 1.0.1.0 netmask 255.255.255.0 gw 192.168.1.1\nroute add 1.0.2.0 mask 255.255.254.0 %gw% metric 5\nroute add 1.0.8.0/21 192.168.1.1\nroute add -host 1.0.9.9 192.168.1.1", []string{
			"1 1.0.1.0/24", "2 1.0.2.0/23", "3 1.0.8.0/21", "4 1.0.9.9/32",
		}},
		{"OpenVPN", "route 1.0.1.0 255.255.255.0 net_gateway 5\npush \"route 1.0.2.0 255.255.254.0\"", []string{"1 1.0.1.0/24", "2 1.0.2.0/23"}},
		{"nft", "table inet fw4 {\n set chnroute {\n  type ipv4_addr\n  flags interval\n  auto-merge\n  elements = { 1.0.1.0/24, 1.0.2.0-1.0.3.255,\n   1.0.8.0/21, 1.0.9.9 }\n }\n}\ndefine cn = {\n1.0.32.0/19,\n}\nadd element inet fw4 chnroute { 1.1.0.0/24, 2001:250::/35 }", []string{
			"6 1.0.1.0/24", "6 1.0.2.0/23", "7 1.0.8.0/21", "7 1.0.9.9/32", "11 1.0.32.0/19", "13 1.1.0.0/24", "13 2001:250::/35",
		}},
		{"RouterOS", "/ip firewall address-list\nadd address=1.0.1.0/24 disabled=no list=CN\nadd list=CN address=1.0.2.0/23", []string{"2 1.0.1.0/24", "3 1.0.2.0/23"}},
		{"everything", "ip route add 0.0.0.0/0 via 192.168.1.1", []string{"1 dropped"}},
		{"bad", "add chnroute 1.0.1.0/33\n{ 1.0.1, }\n1.0.1.0,1.0.1.255\nroute add 1.0.1.1 netmask 255.255.255.0", []string{"1 bad", "2 bad", "3 bad", "4 bad"}},
	})
	script := "create chnroute hash:net family inet\nadd chnroute 1.0.1.0/24\nadd chnroute 1.0.2.0/24\n"
	if f, _, err := list.Detect(strings.NewReader(script)); err != nil || f != list.FormatCIDR {
		t.Errorf("format %q, %v", f, err)
	}
}
