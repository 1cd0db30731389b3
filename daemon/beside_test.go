package daemon

import (
	"strings"
	"testing"

	"smartdns/nft"
	"smartdns/routing"
)

func TestOthersAreKnownByName(t *testing.T) {
	for chain, want := range map[nft.Chain]string{
		{Family: "ip", Table: "filter", Name: "ufw-user-forward"}:  "of ufw drops|ufw route allow in on br-lan out on wg0",
		{Family: "inet", Table: "firewalld", Name: "filter_INPUT"}: "of firewalld drops|--add-interface=wg0",
		{Family: "inet", Table: "fw4", Name: "forward"}:            "of OpenWrt's fw4 drops|uci set firewall.lan_wg0.dest=wg0",
		{Family: "ip", Table: "filter", Name: "DOCKER-USER"}:       "of Docker drops|iptables -I DOCKER-USER -i br-lan -o wg0 -j ACCEPT",
		{Family: "ip", Table: "filter", Name: "mine"}:              "chain ip filter FORWARD drops|",
	} {
		family, table := chain.Family, chain.Table
		name := "FORWARD"
		what, fix := neighbours{chain, {Family: family, Table: table, Name: name}}.gate(nft.Gate{Family: family, Table: table, Chain: name, Links: []string{"br-lan"}}, "wg0")
		text, command, _ := strings.Cut(want, "|")
		if !strings.Contains(what, text) || !strings.Contains(fix, command) {
			t.Errorf("%v: %s\n%s", chain, what, fix)
		}
	}
	for chain, want := range map[nft.Chain]string{
		{Family: "ip", Table: "filter", Name: "ufw-user-input"}:    "of ufw drops what clients on br-lan ask us, at port 53, 5953 over TCP, UDP:|ufw allow in on br-lan to any port 53 && ufw allow in on br-lan to any port 5953",
		{Family: "inet", Table: "firewalld", Name: "filter_INPUT"}: "of firewalld drops|--zone=$zone --add-port=5953/udp --add-port=5953/tcp; firewall-cmd --reload",
		{Family: "inet", Table: "fw4", Name: "input"}:              "of OpenWrt's fw4 drops|firewall.smartdns.dest_port='53 5953'",
		{Family: "ip", Table: "filter", Name: "DOCKER-USER"}:       "of Docker drops what clients on br-lan ask us, at port 53, 5953 over TCP, UDP, as no-lan says: our accept|",
	} {
		g := nft.Gate{Family: chain.Family, Table: chain.Table, Chain: "INPUT", By: "INPUT", Links: []string{"br-lan"}, Ports: []uint16{53, 5953}, Protocols: []string{"tcp", "udp"}}
		if strings.Contains(want, "no-lan") {
			g.By = "no-lan"
		}
		what, fix := neighbours{chain}.inputGate(g)
		text, command, _ := strings.Cut(want, "|")
		if !strings.Contains(what, text) || !strings.Contains(fix, command) {
			t.Errorf("%v: %s\n%s", chain, what, fix)
		}
	}
	whose, fix := neighbours{{Family: "inet", Table: "fw4", Name: "forward"}}.flowtable("inet fw4 ft")
	if whose != " of OpenWrt's fw4" || !strings.Contains(fix, "flow_offloading=0") {
		t.Errorf("%q, %s", whose, fix)
	}
}

func TestRulesOfOthersAreKnown(t *testing.T) {
	links := []routing.Iface{{Link: routing.Link{Name: "wg9"}, Kind: kindWireGuard}}
	for _, c := range []struct {
		rule routing.ForeignRule
		want string // whose, and the fix
	}{
		{routing.ForeignRule{Rule: routing.Rule{Pref: 32765, Not: true, Mark: 51820, Mask: 1<<32 - 1, Table: 51820}}, "wg-quick|wg-quick down wg9"},
		{routing.ForeignRule{Rule: routing.Rule{Pref: 32764, Table: routing.TableMain}, Also: "suppress_prefixlength 0"}, "wg-quick|wg-quick down wg9"},
		{routing.ForeignRule{Rule: routing.Rule{Pref: 5270, Table: 52}}, "Tailscale|tailscale set --exit-node="},
		{routing.ForeignRule{Rule: routing.Rule{Pref: 2001, Mark: 0x100, Mask: 0x3f00, Table: 1}}, "mwan3|mwan3 stop"},
		{routing.ForeignRule{Rule: routing.Rule{Pref: 29998, Mark: 0x10000, Mask: 0xff0000, Table: 256}}, "pbr|service pbr stop"},
		{routing.ForeignRule{Rule: routing.Rule{Pref: 100, Table: 200}}, "|"},
	} {
		whose, fix := ruleOwner(c.rule, links)
		if want, command, _ := strings.Cut(c.want, "|"); whose != want || !strings.HasPrefix(fix, command) || (command == "") != (fix == "") {
			t.Errorf("%s: %q, %q", c.rule, whose, fix)
		}
	}
}

// Of a tunnel's file only what cannot be a secret is passed on.
func TestBundleMasksWhatMayBeSecret(t *testing.T) {
	got := withoutSecrets("[Interface]\nPrivateKey = YAnz5TF=\nAddress = 10.9.0.2/24 # mine\n#PrivateKey = old=\nPostUp = curl -u me:pw x\n[Peer]\npresharedkey=abc=\nPublicKey = xTIB=\nEndpoint=192.0.2.1:51820\n")
	for _, secret := range []string{"YAnz", "old=", "pw", "abc", "mine"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is in\n%s", secret, got)
		}
	}
	for _, want := range []string{"[Interface]\n", "Address = 10.9.0.2/24\n", "PublicKey = xTIB=\n", "Endpoint = 192.0.2.1:51820\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
