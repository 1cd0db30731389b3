package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/resolver/dnsname"
	"smartdns/routing"
)

const key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

// compiled compiles a config whose tunnel wg0 has these AllowedIPs.
func compiled(t *testing.T, config, allowed string) *Parts {
	t.Helper()
	dir := t.TempDir()
	wg := filepath.Join(dir, "wg0.conf")
	text := "[Interface]\nPrivateKey = " + key + "\nAddress = 10.9.0.2/24, fd09::2/64\nDNS = 10.9.0.1\n" +
		"[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nEndpoint = 45.76.1.2:51820\nAllowedIPs = " + allowed + "\n"
	if err := os.WriteFile(wg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(strings.NewReader("[tunnel.wg0]\nconfig = \""+wg+"\"\n"+config), "test.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func prefixes(s ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range s {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestAllowedIPsThatAreMostOfTheInternetSelectNothing(t *testing.T) {
	subnets := []string{"10.9.0.0/24", "fd09::/64", "10.9.0.1/32"}
	for _, c := range []struct {
		what, allowed string
		own           []string // besides the tunnel's own subnets
	}{
		{"everything", "0.0.0.0/0, ::/0", nil},
		{"two halves", "0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1", nil},
		{"everything but the LAN, in pieces", "0.0.0.0/5, 8.0.0.0/7, 11.0.0.0/8, 12.0.0.0/6, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, 128.0.0.0/2", nil},
		{"an office", "10.20.0.0/16, 198.18.5.0/24", []string{"10.20.0.0/16", "198.18.5.0/24"}},
		{"an office in v6, everything in v4", "0.0.0.0/0, 2001:db8:5::/48", []string{"2001:db8:5::/48"}},
	} {
		want := prefixes(append(subnets, c.own...)...)
		got := compiled(t, "", c.allowed).Tunnels[0].own()
		slices.SortFunc(want, netip.Prefix.Compare)
		slices.SortFunc(got, netip.Prefix.Compare)
		if !slices.Equal(got, want) {
			t.Errorf("%s: always through the tunnel: %v, want %v", c.what, got, want)
		}
	}
}

func gatewayFacts() routing.Facts {
	return routing.Facts{
		IPv6: true, Defaults: []routing.Default{{Family: routing.V4, Dev: "eth0", Via: netip.MustParseAddr("203.0.113.1")}},
		Gateways: []netip.Addr{netip.MustParseAddr("203.0.113.1")},
		Links: []routing.Iface{
			{Link: routing.Link{Index: 1, Name: "lo"}, Loopback: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Link: routing.Link{Index: 2, Name: "eth0"}, Addrs: prefixes("203.0.113.7/24", "fe80::7/64")},
			{Link: routing.Link{Index: 3, Name: "br-lan"}, Addrs: prefixes("192.168.8.1/24", "fd00:8::1/64", "fe80::1/64")},
		},
	}
}

const gateway = "[listen]\nlan = [\"br-lan\"]\nclients = [\"10.50.0.0/16\"]\n"

func TestListenOnTheLANToo(t *testing.T) {
	p := compiled(t, gateway, "0.0.0.0/0")
	var got []string
	for _, a := range listenAddrs(p.Config, gatewayFacts()) {
		got = append(got, a.String())
	}
	want := []string{"127.0.0.1:53", "192.168.8.1:53", "192.168.8.1:5953", "[::1]:53", "[fd00:8::1]:53", "[fd00:8::1]:5953"}
	if !slices.Equal(got, want) {
		t.Errorf("listening on %v, want %v", got, want)
	}
}

func TestAWildcardHasTheLANAlready(t *testing.T) {
	p := compiled(t, "[listen]\ndns = [\"0.0.0.0:53\", \"[::1]:53\"]\nlan = [\"br-lan\"]\n", "0.0.0.0/0")
	var got []string
	for _, a := range listenAddrs(p.Config, gatewayFacts()) {
		got = append(got, a.String())
	}
	if want := []string{"0.0.0.0:53", "192.168.8.1:5953", "[::1]:53", "[fd00:8::1]:53", "[fd00:8::1]:5953"}; !slices.Equal(got, want) {
		t.Errorf("listening on %v, want %v", got, want)
	}
}

func TestClientsAreTheLANAndThisHost(t *testing.T) {
	may := clients(compiled(t, gateway, "0.0.0.0/0").Config, gatewayFacts())
	for _, c := range []struct {
		addr string
		want bool
	}{
		{"192.168.8.77", true}, {"fd00:8::77", true}, {"203.0.113.7", true}, {"10.50.1.1", true}, {"127.0.0.9", true}, {"::1", true},
		{"203.0.113.9", false}, {"192.168.9.1", false}, {"2001:db8::1", false},
		// A link-local address is anybody's behind another link.
		{"fe80::77%br-lan", true}, {"fe80::77%eth0", false}, {"fe80::77", false}, {"fe80::1%eth0", false},
		{"fe80::7%eth0", true}, {"fe80::1%br-lan", true}, {"fe80::7%3", false},
	} {
		a := netip.MustParseAddr(c.addr)
		if in := may.ask(a); in != c.want {
			t.Errorf("%s may ask: %t, want %t", a, in, c.want)
		}
		if n := testing.AllocsPerRun(100, func() { may.ask(a) }); n != 0 {
			t.Errorf("%s: %v allocations", a, n)
		}
	}
}

func TestNeverMark(t *testing.T) {
	p := compiled(t, gateway, "0.0.0.0/0")
	n := p.never(gatewayFacts(), []netip.Addr{netip.MustParseAddr("45.76.9.9")})
	for addr, want := range map[string]string{
		"203.0.113.7": "an address of this host", "203.0.113.8": "", "203.0.113.1": "a gateway of this host", "192.168.8.77": "in a network of the LAN",
		"223.5.5.5": "an upstream resolver", "1.1.1.1": "an upstream resolver", "45.76.1.2": "a WireGuard endpoint", "45.76.9.9": "a WireGuard endpoint",
		"10.9.0.77": "in a network of tunnel wg0", "93.184.216.34": "", "39.156.66.10": "",
	} {
		if got := n.Reason(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

// What the resolver tells of an address is what the static sets do with it.
func TestPolicyAndSetsAreMadeOfTheSameLines(t *testing.T) {
	dir := t.TempDir()
	office := filepath.Join(dir, "office.txt")
	if err := os.WriteFile(office, []byte("198.18.0.0/24\n2001:db8:9::/48\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := compiled(t, "[list.office]\nfile = \""+office+"\"\n[decide]\naddresses = [\n"+
		"{ match = \"8.8.8.8\", via = \"direct\" },\n{ match = \"list:office\", via = \"direct\" },\n"+
		"{ match = [\"private\", \"home\"], via = \"direct\" },\n{ match = \"*\", via = \"wg0\" },\n]\n", "0.0.0.0/0, ::/0")
	for addr, want := range map[string]routing.Path{
		"8.8.8.8": "direct", "8.8.4.4": "wg0", "198.18.0.9": "direct", "2001:db8:9::1": "direct", "192.168.1.1": "direct",
		"39.156.66.10": "direct", "93.184.216.34": "wg0", "10.9.0.7": "wg0",
	} {
		a := netip.MustParseAddr(addr)
		if got, rule := p.pathOf(p.Geo.Lookup(a), a); got != want {
			t.Errorf("%s goes %s by addresses[%d], want %s", a, got, rule.Index, want)
		}
	}
	if len(p.Sets.Decide.Rules) != 4 || p.Sets.Decide.Default != "wg0" || len(p.Sets.Lists) != 1 || len(p.Sets.Lists[0].Prefixes) != 2 {
		t.Errorf("the kernel's reading: %+v", p.Sets.Decide)
	}
	if err := p.ruleset(live{marks: marks{routing.DefaultField, map[routing.Path]int{"wg0": 0}}}).Check(); err != nil {
		t.Error(err)
	}
}

// (SECURITY R-17)
func TestItselfIsNoUpstream(t *testing.T) {
	p := compiled(t, "[listen]\nlan = [\"br-lan\"]\n[side.domestic]\nservers = [\"192.168.8.1\"]\n", "0.0.0.0/0")
	err := p.ownServer(gatewayFacts())
	if err == nil || !strings.Contains(err.Error(), "[side.domestic]") || !strings.Contains(err.Error(), "192.168.8.1") {
		t.Errorf("the LAN address as upstream: %v", err)
	}
	if err := compiled(t, gateway, "0.0.0.0/0").ownServer(gatewayFacts()); err != nil {
		t.Error(err)
	}
}

func TestHomeSubnetIsAtHome(t *testing.T) {
	p := compiled(t, "", "0.0.0.0/0")
	s := homeSubnet("CN", p.Geo)
	if s.Bits() != 24 || p.Geo.Lookup(s.Addr()).Region.String() != "home" {
		t.Errorf("judging by %s, which is %s", s, p.Geo.Lookup(s.Addr()).Region)
	}
}

// Errors of all files come together, each with its place.
func TestCompileReportsEverythingThatIsWrong(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.txt")
	if err := os.WriteFile(page, []byte("<!DOCTYPE html><html>captive portal</html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(strings.NewReader("[tunnel.wg0]\nconfig = \"/nonexistent/wg0.conf\"\n[list.foreign]\nfile = \""+page+"\"\n"+
		"[list.gone]\nfile = \"/nonexistent/list\"\n[geo]\nsources = [\"list:gone\", \"embedded\"]\n"+
		"[decide]\nnames = [{ match = \"list:foreign\", ask = \"foreign\" }, { match = \"*\", ask = \"auto\" }]\n"), "test.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Compile(c)
	if err == nil {
		t.Fatal("compiled")
	}
	for _, want := range []string{"test.toml:1: [tunnel.wg0]", "test.toml:3: [list.foreign]", "test.toml:5: [list.gone]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestDefaultsCompile(t *testing.T) {
	p, err := Compile(configs.Default())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Lists) != 1 || p.Lists[0].Entries < 500 {
		t.Errorf("lists: %+v", p.Lists)
	}
	name, err := dnsname.Parse("www.baidu.com")
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := p.Names.Match(name); !ok || r.Side != "domestic" {
		t.Errorf("www.baidu.com: %+v", r)
	}
}
