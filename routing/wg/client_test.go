package wg_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"smartdns/routing/wg"
)

const farEndText = `# the exit
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
Address = 10.9.0.1/29, fd09::1/64
ListenPort = 51820

# laptop
# bought last year
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.9.0.2/32, fd09::2/128

[Peer] # tablet
PublicKey = TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=
AllowedIPs = 10.9.0.4/32, 192.168.8.0/24
`

func farEndConfig(t *testing.T, text string) *wg.Config {
	t.Helper()
	c, err := wg.Parse(strings.NewReader(text), "wg0.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newClient(name string) wg.NewClient {
	return wg.NewClient{
		Name: name, Endpoint: wg.Endpoint{Host: "exit.example.com", Port: 51820}, DNS: []string{"1.1.1.1"},
		Allowed: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
}

// A new client gets the lowest free address of each network, keys that fit both
// files, and a section at the end; all else stays byte for byte.
func TestAddClient(t *testing.T) {
	text := farEndText
	for i, want := range []string{"[10.9.0.3/32 fd09::3/128]", "[10.9.0.5/32 fd09::4/128]", "[10.9.0.6/32 fd09::5/128]"} {
		c := farEndConfig(t, text)
		name := fmt.Sprintf("phone%d", i)
		with, file, peer, err := wg.AddClient(text, c, newClient(name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(with, text) || !strings.HasPrefix(with[len(text):], "\n# "+name+"\n[Peer]\n") {
			t.Errorf("the file became\n%s", with)
		}
		if got := fmt.Sprint(peer.AllowedIPs); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
		own, err := wg.Parse(strings.NewReader(string(file)), name)
		if err != nil {
			t.Fatal(err)
		}
		if own.PrivateKey.PublicKey() != peer.PublicKey || own.Peers[0].PublicKey != c.PrivateKey.PublicKey() ||
			own.Peers[0].PresharedKey != peer.PresharedKey || peer.PresharedKey.IsZero() {
			t.Error("the keys of the two ends do not fit")
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v %s %q", file, file, file, file, file), "PrivateKey") {
			t.Error("the client's file prints itself")
		}
		text = with
	}
	if _, _, _, err := wg.AddClient(text, farEndConfig(t, text), newClient("one-more")); err == nil || !strings.Contains(err.Error(), "10.9.0.0/29 are taken") {
		t.Errorf("in a full network: %v", err)
	}
	names := []string{}
	for _, p := range wg.Clients(text, farEndConfig(t, text)) {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " | "); got != "bought last year | tablet | phone0 | phone1 | phone2" {
		t.Errorf("names: %s", got)
	}
}

// What somebody has already is not given again, and the error says whose it is.
func TestAddClientRefuses(t *testing.T) {
	for want, change := range map[string]func(*wg.NewClient){
		"client tablet already":                     func(n *wg.NewClient) { n.Name = "tablet" },
		"10.9.0.1 is this host's own":               func(n *wg.NewClient) { n.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.1")} },
		"wg0.conf:9: 10.9.0.2/32 belongs":           func(n *wg.NewClient) { n.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.2")} },
		"wg0.conf:13: 192.168.0.0/16 belongs":       func(n *wg.NewClient) { n.Networks = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")} },
		"behind phone overlaps Address 10.9.0.1/29": func(n *wg.NewClient) { n.Networks = []netip.Prefix{netip.MustParsePrefix("10.9.0.4/30")} },
	} {
		n := newClient("phone")
		change(&n)
		if _, _, _, err := wg.AddClient(farEndText, farEndConfig(t, farEndText), n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	alone := strings.Replace(farEndText, "10.9.0.1/29, fd09::1/64", "10.9.0.1/32", 1)
	if _, _, _, err := wg.AddClient(alone, farEndConfig(t, alone), newClient("phone")); err == nil || !strings.Contains(err.Error(), "no network with room") {
		t.Errorf("without a network: %v", err)
	}
}

// A client goes with its section and the comments above it; what is added and
// removed leaves the file as it was.
func TestRemoveClient(t *testing.T) {
	c := farEndConfig(t, farEndText)
	with, _, peer, err := wg.AddClient(farEndText, c, newClient("phone"))
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"phone", peer.PublicKey.String()} {
		without, gone, err := wg.RemoveClient(with, farEndConfig(t, with), who)
		if err != nil || without != farEndText || gone.PublicKey != peer.PublicKey {
			t.Errorf("without %s: %v\n%s", who, err, without)
		}
	}
	without, _, err := wg.RemoveClient(farEndText, c, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	if want := farEndText[:strings.Index(farEndText, "# laptop")] + farEndText[strings.Index(farEndText, "[Peer] # tablet"):]; err != nil || without != want {
		t.Errorf("without the first: %v\n%s", err, without)
	}
	if _, _, err := wg.RemoveClient(farEndText, c, "watch"); err == nil || !strings.Contains(err.Error(), "there are bought last year, tablet") {
		t.Errorf("nobody: %v", err)
	}
	twice := farEndText + strings.ReplaceAll(with[len(farEndText):], "phone", "tablet")
	if _, _, err := wg.RemoveClient(twice, farEndConfig(t, twice), "tablet"); err == nil || !strings.Contains(err.Error(), "give the public key") {
		t.Errorf("two of a name: %v", err)
	}
}

func TestCheckFarEnd(t *testing.T) {
	for want, text := range map[string]string{
		"":                                  farEndText,
		"wg0.conf: [Interface] has no Addr": "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
		"wg0.conf:13: [Peer] AllowedIPs: 0.0.0.0/0 would send": strings.Replace(farEndText, "192.168.8.0/24", "0.0.0.0/0", 1),
	} {
		err := farEndConfig(t, text).CheckFarEnd()
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// Whatever the file looks like, a client that is added can be removed again, and
// the rest is as it was.
func FuzzAddAndRemoveClient(f *testing.F) {
	f.Add(farEndText)
	f.Add(strings.TrimSuffix(farEndText, "\n") + "# the end")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := wg.Parse(strings.NewReader(text), "wg0.conf")
		if err != nil {
			return
		}
		with, _, peer, err := wg.AddClient(text, c, newClient("fuzz-client"))
		if err != nil {
			return
		}
		after, err := wg.Parse(strings.NewReader(with), "wg0.conf")
		if err != nil || len(after.Peers) != len(c.Peers)+1 {
			t.Fatalf("%v\n%s", err, with)
		}
		without, _, err := wg.RemoveClient(with, after, peer.PublicKey.String())
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimRight(without, "\n \t\r") != strings.TrimRight(text, "\n \t\r") {
			t.Errorf("was %q, is %q", text, without)
		}
	})
}
