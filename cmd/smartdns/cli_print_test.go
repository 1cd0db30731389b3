package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"smartdns/web/api"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares what a person sees with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
}

// printed is what f writes without colour. It fails where a line is too wide or
// holds what a terminal acts on.
func printed(t *testing.T, f func(printer)) string {
	t.Helper()
	var b strings.Builder
	f(printer{w: &b})
	readable(t, b.String())
	return b.String()
}

// readable fails for a line of more than 80 columns that could have been
// broken, and for control characters.
func readable(t testing.TB, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if words := strings.Fields(line); columns(line) > width && len(words) > 1 {
			t.Errorf("%d columns: %s", columns(line), line)
		}
		if safe(line) != line {
			t.Errorf("control characters: %q", line)
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Lines of a file, as stories quote them.
var (
	ruleAll = api.Rule{Where: "names[2]", Text: `"*"`, At: "smartdns.toml:33", Do: "ask auto"}
	ruleFew = api.Rule{
		Where: "names[0]", Text: `["baidu.com", "qq.com", "taobao.com", "cn.test"]`, At: "smartdns.toml:31",
		Matched: "cn.test", Do: "ask domestic",
	}
	ruleList = api.Rule{
		Where: "names[1]", Text: `"list:cn-domains"`, At: "smartdns.toml:32", Matched: "baidu.com", List: "cn-domains:12", Do: "ask domestic",
	}
	leaveWG0  = api.Rule{Where: "addresses[1]", Text: `"*"`, At: "smartdns.toml:38", Do: "via wg0"}
	leaveHome = api.Rule{Where: "addresses[0]", Text: `["private", "home"]`, At: "smartdns.toml:37", Do: "via direct"}
)

func foreignAddress(a string, life api.Seconds) api.Address {
	set := "wg0_4"
	if addr(a).Is6() {
		set = "wg0_6"
	}
	return api.Address{
		Addr: addr(a), TTL: 300, Region: "abroad", Because: "no list matches", Path: "wg0", Rule: leaveWG0,
		Mark: api.Mark{Set: set, Life: life, Acked: true},
		Kernel: &api.Kernel{
			Sets: []api.Element{{Set: set, Remaining: life}}, Mark: "0x2000000", Table: 52001, Dev: "wg0", Source: "10.9.0.2",
			Route: "table 52001 dev wg0 src 10.9.0.2", Peer: "V7g3…", Handshake: 31,
		},
	}
}

func homeAddress(a string) api.Address {
	return api.Address{
		Addr: addr(a), TTL: 300, Region: "home", Because: "39.128.0.0/10 in embedded:183", Path: "direct", Rule: leaveHome,
		Mark: api.Mark{Set: "direct_4", Life: 3600, Acked: true},
		Kernel: &api.Kernel{
			Sets: []api.Element{{Set: "direct_4", Remaining: 3600}}, Mark: "0x0", Table: 254, Dev: "wan0",
			Via: "192.0.2.1", Source: "192.0.2.2",
		},
	}
}

func TestQueryReads(t *testing.T) {
	learned := api.Seconds(26)
	foreign := func(took api.Seconds, note string) api.Asked {
		return api.Asked{Side: "foreign", Server: "tls://1.1.1.1", Via: "wg0", Proto: "tls", Took: took, Note: note}
	}
	domestic := func(server string, took api.Seconds, note string) api.Asked {
		return api.Asked{Side: "domestic", Server: server, Via: "direct", Proto: "udp", Took: took, Note: note}
	}
	for name, d := range map[string]api.Decision{
		"fresh": {
			Name: "www.example.com", Type: "A", RCode: "NOERROR", Took: 0.041,
			Steps: []api.Step{{
				Name: "www.example.com", Rule: ruleAll,
				Auto:  &api.Auto{Mode: "foreign-first", Region: "abroad", Why: "93.184.216.34, for a client in 114.240.0.0/24"},
				Asked: []api.Asked{foreign(0.039, ""), foreign(0.0402, "to judge the region")},
			}},
			Answers: []api.Address{foreignAddress("93.184.216.34", 3600)},
		},
		"cached": {
			Name: "www.example.com", Type: "A", Client: "192.168.8.20", RCode: "NOERROR", Took: 0.000041, Cached: "fresh",
			Steps: []api.Step{{
				Name: "www.example.com", Rule: ruleAll,
				Auto:  &api.Auto{Mode: "foreign-first", Region: "abroad", Why: "93.184.216.34, for a client in 114.240.0.0/24", Learned: &learned},
				Asked: []api.Asked{{Side: "foreign", Via: "wg0", Cached: "fresh"}},
			}},
			Answers: []api.Address{foreignAddress("93.184.216.34", 3600)},
		},
		"pinned": {
			Name: "www.example.com", Type: "A", RCode: "NOERROR", Took: 0.039,
			Steps: []api.Step{{
				Name: "www.example.com", Rule: ruleAll,
				Auto:  &api.Auto{Mode: "foreign-first", Region: "abroad", Why: "pinned", Learned: &learned, Pinned: true},
				Asked: []api.Asked{foreign(0.039, "")},
			}},
			Answers: []api.Address{foreignAddress("93.184.216.34", 3600)},
		},
		"home": {
			Name: "www.baidu.com", Type: "A", RCode: "NOERROR", Took: 0.0074,
			Steps:   []api.Step{{Name: "www.baidu.com", Rule: ruleList, Asked: []api.Asked{domestic("223.5.5.5", 0.0071, "")}}},
			Records: []api.Record{{Name: "www.baidu.com", Type: "CNAME", TTL: 600, Data: "www.a.shifen.com"}},
			Answers: []api.Address{homeAddress("39.156.66.10"), homeAddress("39.156.66.14")},
		},
		"poisoned": {
			Name: "www.google.com", Type: "A", RCode: "NOERROR", Took: 0.402,
			Steps: []api.Step{{
				Name: "www.google.com", Rule: api.Rule{Where: "names[0]", Text: `"google.com"`, At: "smartdns.toml:31", Matched: "google.com", Do: "ask domestic"},
				Asked: []api.Asked{
					domestic("119.29.29.29", 0.311, "no reply yet"),
					domestic("223.5.5.5", 0.401, "looks forged: 203.98.7.65 is known from forged answers"),
					foreign(0.031, "as second opinion"),
				},
			}},
			Answers: []api.Address{foreignAddress("142.250.72.196", 3600)},
		},
		"cut": {
			Name: "cross.cn.test", Type: "A", RCode: "NOERROR", Took: 0.052,
			Steps: []api.Step{
				{Name: "cross.cn.test", Rule: ruleFew, Asked: []api.Asked{domestic("223.5.5.5", 0.0062, "")}},
				{
					Name: "www.bank.test", Rule: ruleAll, Asked: []api.Asked{foreign(0.041, "")},
					Auto: &api.Auto{Mode: "race", Region: "abroad", Why: "93.184.216.40, for a client abroad"},
				},
			},
			Records: []api.Record{{Name: "cross.cn.test", Type: "CNAME", TTL: 60, Data: "www.bank.test"}},
			Answers: []api.Address{foreignAddress("93.184.216.40", 3600)},
		},
		"many": {
			Name: "many.example.com", Type: "HTTPS", RCode: "NOERROR", Took: 0.0391,
			Steps:   []api.Step{{Name: "many.example.com", Rule: ruleAll, Auto: &api.Auto{Mode: "foreign-only"}, Asked: []api.Asked{foreign(0.039, "")}}},
			Records: []api.Record{{Name: "many.example.com", Type: "HTTPS", TTL: 300, Data: "1 . alpn=h3,h2 ipv4hint=93.184.216.34,93.184.216.35 ipv6hint=2606:2800:220:1:248:1893:25c8:1946"}},
			Answers: []api.Address{
				hint(foreignAddress("93.184.216.34", 3600)), hint(foreignAddress("93.184.216.35", 3600)),
				{
					Addr: addr("192.168.8.1"), Region: "private", Because: "192.168.0.0/16 in private", Path: "direct", Rule: leaveHome,
					Dropped: "private in an answer for a public name (192.168.0.0/16)",
				},
				hint(foreignAddress("2606:2800:220:1:248:1893:25c8:1946", 5400)),
			},
			EDE:   []api.EDE{{Code: 17, Text: "192.168.8.1: private in an answer for a public name (192.168.0.0/16)"}},
			Notes: []string{"forgot the verdict for many.example.com: every address of it is home"},
		},
		"servfail": {
			Name: "www.example.com", Type: "AAAA", RCode: "SERVFAIL", Took: 5,
			Steps: []api.Step{{Name: "www.example.com", Rule: ruleAll, Auto: &api.Auto{Mode: "foreign-first"}, Asked: []api.Asked{
				{Side: "foreign", Server: "tls://1.1.1.1", Via: "wg0", Proto: "tls", Took: 5, Error: "connecting: dial tcp 1.1.1.1:853: i/o timeout"},
				{Side: "domestic", Via: "direct", Error: "no answer in time", Took: 2.5, Note: "as fallback"},
			}}},
			EDE: []api.EDE{{Code: 22, Text: "tls://1.1.1.1: connecting: dial tcp 1.1.1.1:853: i/o timeout; tls://8.8.8.8: connecting: dial tcp 8.8.8.8:853: i/o timeout"}},
		},
		"unmarked": {
			Name: "www.example.com", Type: "A", RCode: "SERVFAIL", Took: 0.039, Cached: "failure",
			Steps: []api.Step{{Name: "www.example.com", Rule: ruleAll, Auto: &api.Auto{Mode: "foreign-first"}, Asked: []api.Asked{{Side: "foreign", Via: "wg0", Cached: "failure", Error: "said above"}}}},
			Answers: []api.Address{{
				Addr: addr("93.184.216.34"), Region: "abroad", Because: "no list matches", Path: "wg0", Rule: leaveWG0,
				Mark:   api.Mark{Reason: "the set wg0_4 is full"},
				Kernel: &api.Kernel{Mark: "0x2000000", Dev: "nowhere", Route: "no route to host"},
			}},
			EDE: []api.EDE{{Code: 28, Text: "not marked: 93.184.216.34 on wg0: the set wg0_4 is full"}},
		},
		"nothing": {
			Name: "nodata.example.com", Type: "A", RCode: "NOERROR", Took: 0.0391,
			Steps: []api.Step{{Name: "nodata.example.com", Rule: ruleAll, Auto: &api.Auto{Mode: "foreign-first"}, Asked: []api.Asked{foreign(0.039, "")}}},
		},
		"blocked": {
			Name: "ads.example.com", Type: "A", RCode: "NXDOMAIN", Took: 0.000015,
			Steps: []api.Step{{Name: "ads.example.com", Rule: api.Rule{Where: "names[0]", Text: `"ads.example.com"`, At: "smartdns.toml:23", Do: "answered here: block"}}},
			EDE:   []api.EDE{{Code: 15, Text: `blocked by "ads.example.com" (smartdns.toml:23)`}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, "query-"+name+".txt", printed(t, func(p printer) { p.decision(cleaned(d)) }))
		})
	}
}

func hint(a api.Address) api.Address { a.Hint = true; return a }

func TestRouteReads(t *testing.T) {
	a := foreignAddress("93.184.216.34", 3541)
	a.Mark = api.Mark{}
	for i := range 10 {
		a.Kernel.Flows = append(a.Kernel.Flows, api.Flow{
			Proto: "tcp", From: netip.AddrPortFrom(addr("192.168.8.20"), uint16(51552+i)), To: netip.MustParseAddrPort("93.184.216.34:443"), Path: "wg0",
		})
	}
	own := api.Address{
		Addr: addr("10.9.0.1"), Region: "private", Because: "10.0.0.0/8 in private", Path: "wg0",
		Rule:   api.Rule{Where: "no line of the file", Text: "its own network is always wg0's"},
		Mark:   api.Mark{Reason: "in a network of tunnel wg0: never marked"},
		Kernel: &api.Kernel{Error: "reading set wg0_4: operation not permitted"},
	}
	golden(t, "route.txt", printed(t, func(p printer) {
		p.route(cleaned(api.Route{Answers: []api.Address{a}}))
		p.route(cleaned(api.Route{Answers: []api.Address{own}}))
	}))
}

func TestStatusReads(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	shaken := now.Add(-31 * time.Second)
	listen := api.Listen{
		Addrs: []netip.AddrPort{
			netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("192.168.8.1:53"), netip.MustParseAddrPort("192.168.8.1:5953"),
			netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("[fd00:8::1]:53"),
		},
		Clients: []netip.Prefix{netip.MustParsePrefix("192.168.8.0/24")}, HostAsks: true, UDP: 4711, TCP: 12, Refused: 3,
		DoT: []netip.AddrPort{netip.MustParseAddrPort("192.168.8.1:853")}, DoH: []netip.AddrPort{netip.MustParseAddrPort("192.168.8.1:443")}, TLS: 7, HTTPS: 21,
		Asks: []api.ListenerSide{{Addr: netip.MustParseAddrPort("192.168.8.1:853"), Side: "foreign"}},
		Certificate: &api.Certificate{
			Pin: "MK9cs3mTYLEcAQoPvRrJGQ0HsmFsPHxEMGvPmqpTKyI=", Own: true, File: "/var/lib/smartdns/tls.pem",
			Names: []string{"router", "192.168.8.1"}, Until: now.Add(397 * 24 * time.Hour),
		},
	}
	fine := api.Status{
		Fine: true, Summary: "fine: resolving, and routing through wg0", Uptime: 93784, Listen: listen,
		Tunnels: []api.Tunnel{{
			Path: "wg0", State: "up", Device: "kernel", Endpoint: "45.76.1.2:51820", Peer: "V7g3…", Handshake: &shaken,
			Traffic: api.Traffic{Received: 123456789, Sent: 4321, MTU: api.MTU{Link: 1420, From: "route"}}, Probe: &api.Probe{At: shaken, Latency: 0.0412}, Carrier: api.Carrier{WhenDown: "block", CarriedBy: "wg0"}, Mark: "0x2000000", Table: 52001,
		}},
		Sides: []api.Side{
			{Name: "domestic", Via: "direct", Servers: []api.Server{{Server: "223.5.5.5", Up: true, Latency: 0.0071, Queries: 812, Suspect: 7}, {Server: "119.29.29.29", Up: true}}},
			{Name: "foreign", Via: "wg0", Servers: []api.Server{{Server: "tls://1.1.1.1:853#cloudflare-dns.com", Up: true, Latency: 0.039, Queries: 1207, Failures: 1}}},
		},
		Lists: []api.List{{Name: "cn-domains", Source: "embedded", Entries: 551}, {Name: "office", Source: "/etc/smartdns/office.txt", Entries: 1, Dropped: 2}},
		Sets: []api.Set{
			{Name: "direct_4", Path: "direct", Elements: 120, Size: 262144}, {Name: "direct_6", Path: "direct", Elements: 3, Size: 262144},
			{Name: "home_4", Elements: 4130}, {Name: "home_6", Elements: 10282}, {Name: "lan_4", Elements: 1}, {Name: "lan_ifs", Elements: 1},
			{Name: "local_4", Elements: 8}, {Name: "office_4", Elements: 1}, {Name: "office_6"}, {Name: "uplinks", Elements: 1},
			{Name: "wg0_4", Path: "wg0", Elements: 431, Size: 262144}, {Name: "wg0_6", Path: "wg0", Elements: 1, Size: 262144},
		},
		Classified: []string{"this host", "from br-lan", "not docker0 (skip)"},
		Counters: []api.Counter{
			{Group: "queries", Name: "queries", Value: 4723}, {Group: "queries", Name: "answered from the cache", Value: 3001}, {Group: "queries", Name: "failed"},
			{Group: "poison", Name: "suspicious answers", Value: 7}, {Group: "poison", Name: "replaced by the foreign side's", Value: 7},
			{Group: "flows", Name: "new flows on wg0", Value: 801}, {Group: "packets", Name: "packets: of wg0 kept from an uplink"},
			{Group: "packets", Name: "packets: new connections from outside, blocked", Value: 2},
		},
	}
	bad := fine
	bad.Fine, bad.Uptime = false, 61
	bad.Summary = "not fine: tunnel wg0 is down: no answer from 45.76.1.2:51820; its traffic is blocked"
	bad.Conditions = []api.Condition{
		{Severity: "error", What: "tunnel wg0 is down: no answer from 45.76.1.2:51820; its traffic is blocked", Fix: "wg show wg0"},
		{Severity: "error", What: "no server of the foreign side answers"},
		{Severity: "warning", What: "this host does not ask us: /etc/resolv.conf names another resolver", Fix: "write system = true under [listen], or: echo nameserver 127.0.0.1 > /etc/resolv.conf"},
	}
	bad.Tunnels = []api.Tunnel{
		{
			Path: "wg0", State: "blocked", Device: "userspace", Endpoint: "45.76.1.2:51820", Peer: "V7g3…", Mark: "0x2000000", Table: 52001,
			Traffic: api.Traffic{MTU: api.MTU{Link: 1280, Fits: 1216, From: "measured"}},
			Probe:   &api.Probe{At: shaken, Error: "probing 8.8.8.8:53 through the tunnel: i/o timeout"}, Carrier: api.Carrier{WhenDown: "block"},
		},
		{
			Path: "wg1", State: "down", Device: "userspace", Endpoint: "45.76.1.9:51820", Peer: "k9Tr…", Mark: "0x3000000", Table: 52002,
			Carrier: api.Carrier{WhenDown: "wg2", CarriedBy: "wg2", StandIn: "wg1 is down, wg2 stands in"},
		},
	}
	bad.Sides = []api.Side{{Name: "foreign", Via: "wg0", Servers: []api.Server{{Server: "1.1.1.1", Queries: 3, Failures: 3, Latency: 1, LastError: "connecting: dial tcp 1.1.1.1:53: i/o timeout"}}}}
	bad.Lists, bad.Sets, bad.Counters = []api.List{{Name: "cn-domains", Source: "/etc/smartdns/cn.conf", Error: "no such file"}}, nil, nil
	only := api.Status{Fine: true, Summary: "fine, but only resolving: no tunnel is configured, so nothing is routed", Uptime: 3, Listen: listen}
	for name, s := range map[string]api.Status{"fine": fine, "bad": bad, "only": only} {
		golden(t, "status-"+name+".txt", printed(t, func(p printer) { p.status(cleaned(s), now) }))
	}
}

func TestListsRead(t *testing.T) {
	now := time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
	text := printed(t, func(p printer) {
		p.lists(api.Lists{Lists: []api.List{
			{Name: "cn-domains", Kind: "names", Format: "dnsmasq", Entries: 110767, Dropped: 2, Fetched: &api.Fetched{
				From: "https://lists.example.net/china.conf", Via: "wg0", At: now.Add(-3 * time.Hour), Size: 4 << 20,
				Checked: now.Add(-time.Hour), Next: now.Add(23 * time.Hour), Previous: true,
			}},
			{Name: "gfw", Kind: "names", Entries: 4033, Fetched: &api.Fetched{
				From: "https://lists.example.net/gfw.txt", Via: "wg0", At: now.Add(-50 * time.Hour), Size: 80 << 10,
				Checked: now.Add(-50 * time.Hour), Next: now.Add(5 * time.Minute),
				Failure: &api.ListFailure{Text: "https://lists.example.net/gfw.txt: it has 12 entries, and 4033 until now: less than half", Gated: true, Times: 3},
			}},
			{Name: "nets", Source: "not fetched yet", Fetched: &api.Fetched{URLs: []string{"https://lists.example.net/nets.txt"}, Via: "wg0", Waiting: true}},
			{Name: "ads", Source: "/etc/smartdns/ads.txt", Kind: "names", Entries: 12},
		}}, now)
		p.updates(api.ListUpdates{Updates: []api.ListUpdate{
			{Name: "cn-domains", Changed: true, Entries: 110767}, {Name: "gfw", Entries: 4033, Error: "https://lists.example.net/gfw.txt: answers 404 Not Found"}, {Name: "nets", Entries: 1},
		}})
		p.listDiff(api.ListDiff{
			Name: "gfw", Now: now, Before: now.Add(-24 * time.Hour), Adds: 1, Removes: 2, Added: []string{"new.example"}, Removed: []string{"a.example", "b.example"},
			Examined: 100, Sides: []api.ListTurns{{Name: "www.new.example", Before: "ask auto", Now: "ask foreign", Often: true}},
		})
	})
	readable(t, text)
	inOrder(t, "lists", text,
		"cn-domains", "names (dnsmasq), 110767 entries, 2 dropped, 4.0 MiB", "3h ago", "via wg0", "1h ago", "next in 23h",
		"gfw", "next in 5m", "less than half", "--force", "nets", "not fetched yet", "when wg0 is up", "ads", "/etc/smartdns/ads.txt",
		"cn-domains", "updated", "gfw", "failed", "404", "nets", "unchanged",
		"added", "new.example", "removed", "a.example", "turned", "1 of 100", "ask auto → ask foreign", "often")
}

func TestMarksRead(t *testing.T) {
	golden(t, "marks.txt", printed(t, func(p printer) {
		p.marks(api.Marks{})
		p.marks(api.Marks{
			Marks: []api.MarkLine{
				{Addr: addr("93.184.216.34"), Path: "wg0", Set: "wg0_4", Remaining: 3550},
				{Addr: addr("2606:2800:220:1:248:1893:25c8:1946"), Path: "a-tunnel-of-15c", Set: "a-tunnel-of-15c_6", Remaining: 59},
			},
			Conflicts: []api.Conflict{{Addr: addr("93.184.216.34"), Paths: []string{"wg0", "direct"}, Used: "wg0"}},
		})
	}))
}

func TestVerdictsRead(t *testing.T) {
	golden(t, "verdicts.txt", printed(t, func(p printer) {
		p.verdicts(api.Verdicts{})
		p.verdicts(api.Verdicts{
			Verdicts: []api.Verdict{
				{Name: "a-name-of-considerable-length.in-a-zone-with-a-long-name.example.com", Region: "abroad", Why: "93.184.216.34, for a client in 114.240.0.0/24", Age: 93784, Idle: 60, Hits: 12},
				{Name: "www.example.cn", Region: "home", Why: "39.156.66.10, for a client in 114.240.0.0/24", Age: 3550, Hits: 1, Confirmed: 3},
				{Name: "www.example.org", Region: "home", Why: "pinned", Pinned: true, Age: 864000, Hits: 7},
			},
			Bytes: 1024, Limit: 8 << 20,
		})
	}))
}

// Names and errors off the network neither steer the terminal nor break a row
// (SECURITY W-07); JSON stays JSON and reads back as it was.
func TestHostileTextIsShownNotObeyed(t *testing.T) {
	const evil = "a\x1b[2J\x1b]0;owned\x07b\nc\r\x00\x7f\u009b31m\u202egnp.exe\u2066"
	d := api.Decision{
		Name: evil, Type: evil, Client: evil, RCode: evil, Notes: []string{evil}, EDE: []api.EDE{{Code: 0, Text: evil}},
		Steps:   []api.Step{{Name: evil, Rule: api.Rule{Where: evil, Text: evil, List: evil, Matched: evil}, Auto: &api.Auto{Mode: evil, Why: evil}, Asked: []api.Asked{{Server: evil, Error: evil, Note: evil}}}},
		Records: []api.Record{{Name: evil, Type: evil, Data: evil}},
		Answers: []api.Address{{Addr: addr("192.0.2.1"), Because: evil, Mark: api.Mark{Reason: evil}, Kernel: &api.Kernel{Error: evil}}},
	}
	text := printed(t, func(p printer) { p.decision(cleaned(d)) })
	if !strings.Contains(text, "a?[2J?]0;owned?b?c????31m?gnp.exe?") {
		t.Errorf("the text is not shown:\n%s", text)
	}
	var b strings.Builder
	if err := (printer{w: &b}).json(d); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSuffix(line, "\n"); safe(line) != line {
			t.Errorf("control characters in JSON: %q", line)
		}
	}
	var back api.Decision
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back.Name != evil || back.Answers[0].Kernel.Error != evil {
		t.Errorf("JSON reads back as %q, %v", back.Name, err)
	}
	if d.Name != evil || d.Answers[0].Kernel.Error == "" {
		t.Error("printing changed the data")
	}
}

func TestColourIsForTerminals(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("SKIPPED: no pseudo-terminals: " + err.Error())
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	plainFile, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer plainFile.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !newPrinter(tty).color || newPrinter(plainFile).color || newPrinter(&strings.Builder{}).color {
		t.Errorf("colour on a terminal %t, in a file %t, in memory %t", newPrinter(tty).color, newPrinter(plainFile).color, newPrinter(&strings.Builder{}).color)
	}
	t.Setenv("NO_COLOR", "1")
	if newPrinter(tty).color {
		t.Error("colour although NO_COLOR is set")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if newPrinter(tty).color {
		t.Error("colour on a dumb terminal")
	}
}

// Colour changes no column.
func TestColourKeepsTheLayout(t *testing.T) {
	show := func(p printer) {
		p.decision(api.Decision{
			Name: "www.example.com", Type: "A", RCode: "SERVFAIL", Took: 1,
			Steps:   []api.Step{{Rule: ruleAll, Asked: []api.Asked{{Side: "foreign", Server: "1.1.1.1", Via: "wg0", Error: strings.Repeat("a long reason, ", 12)}}}},
			Answers: []api.Address{foreignAddress("93.184.216.34", 3600)},
		})
	}
	var b strings.Builder
	show(printer{w: &b, color: true})
	if !strings.Contains(b.String(), "\x1b[") {
		t.Fatal("no colour")
	}
	if without := printed(t, show); plain(b.String()) != without {
		t.Errorf("with colour:\n%s\nwithout:\n%s", plain(b.String()), without)
	}
}

func TestDurationsRead(t *testing.T) {
	for s, want := range map[api.Seconds]string{
		0: "0s", 0.4: "0s", 59: "59s", 60: "1m", 61: "1m1s", 3540: "59m", 3550: "59m10s", 3600: "1h", 3660: "1h1m", 7199: "1h59m",
		7200: "2h", 36000: "10h", 86400: "1d", 93784: "1d2h", 864000: "10d",
	} {
		if got := long(s); got != want {
			t.Errorf("%v seconds: %q, want %q", s, got, want)
		}
	}
	for s, want := range map[api.Seconds]string{0.000041: "41 µs", 0.0071: "7.1 ms", 0.041: "41 ms", 5: "5.0 s"} {
		if got := short(s); got != want {
			t.Errorf("%v seconds: %q, want %q", s, got, want)
		}
	}
}

func TestLongMatchesAreCutToWhatMatched(t *testing.T) {
	const many = `["full:www.example.com", "keyword:shop", "list:foreign", "2001:db8::/32", "regexp:^ad[0-9]+\\.", "home"]`
	for _, c := range []struct {
		rule         api.Rule
		region, want string
	}{
		{api.Rule{Text: `["private", "home"]`}, "home", `["private", "home"]`},
		{api.Rule{Text: many, Matched: "www.example.com"}, "", `["full:www.example.com", …]`},
		{api.Rule{Text: many, Matched: "shop"}, "", `["keyword:shop", …]`},
		{api.Rule{Text: many, Matched: "example.org", List: "foreign:7"}, "", `["list:foreign", …]`},
		{api.Rule{Text: many, Matched: "2001:db8::/32"}, "", `["2001:db8::/32", …]`},
		{api.Rule{Text: `["192.0.2.0/24", "2001:db8::1"]`, Matched: "2001:db8::1/128"}, "", `["2001:db8::1", …]`},
		{api.Rule{Text: many}, "home", `["home", …]`},
		{api.Rule{Text: many, Matched: "unknown"}, "", `["full:www.example.com", …]`},
		{api.Rule{Text: `"one-name-of-some-length.example.com"`}, "", `"one-name-of-some-length.example.com"`},
	} {
		if got := matched(c.rule, c.region); got != c.want {
			t.Errorf("%+v: %s, want %s", c.rule, got, c.want)
		}
	}
}
