package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/resolver/server"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/web/api"
)

func healthy() host {
	return host{
		clock: clockFacts{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}, listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")},
		config: configFacts{tunnels: []routing.Path{"wg0"}},
		space:  spaceFacts{state: "/var/lib/smartdns", disk: 1 << 30, memory: 1 << 30},
	}
}

func TestDoctorJudges(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	rule := `"ip rule pref 100 lookup 200" comes before our rules`
	for name, c := range map[string]struct {
		change func(*host)
		want   string // severity, text and fix: parts of them
	}{
		"nothing": {func(*host) {}, ""},
		"stub listener": {func(h *host) {
			h.sockets = []portHolder{{Holder: server.Holder{Addr: at("0.0.0.0:53"), PID: 7, Name: "systemd-resolve"}}}
		}, "error|taken by systemd-resolve (process 7)|DNSStubListener=no"},
		"the other one": {func(h *host) {
			h.sockets = []portHolder{{Holder: server.Holder{Addr: at("[::]:53"), PID: 7, Name: "smartdns"}}}
		}, "error|another program of this name|systemctl disable --now smartdns"},
		"nobody's": {func(h *host) { h.sockets = []portHolder{{Holder: server.Holder{Addr: at("127.0.0.1:53")}}} }, "error|may not look at|ss -lnp"},
		"other address": {func(h *host) {
			h.sockets = []portHolder{{Holder: server.Holder{Addr: at("127.0.0.53:53"), PID: 7, Name: "systemd-resolve"}}}
		}, ""},
		"both networks": {func(h *host) {
			for _, n := range []string{"udp", "tcp"} {
				h.sockets = append(h.sockets, portHolder{Holder: server.Holder{Network: n, Addr: at("0.0.0.0:53"), PID: 7, Name: "named"}, unit: "named.service"})
			}
		}, "error|port 53 of 0.0.0.0 over UDP and TCP is taken by named (process 7)|systemctl disable --now named.service"},
		"a child of what must stay": {func(h *host) {
			h.sockets = []portHolder{{Holder: server.Holder{Network: "udp", Addr: at("127.0.0.1:53"), PID: 7, Name: "dnsmasq"}, unit: "NetworkManager.service"}}
		}, "error|over UDP is taken by dnsmasq (process 7 of NetworkManager.service)|dns=default"},
		"a child of somebody": {func(h *host) {
			h.sockets = []portHolder{{Holder: server.Holder{Addr: at("127.0.0.1:53"), PID: 7, Name: "dnsmasq"}, unit: "pihole.service"}}
		}, "error|7 of pihole.service|systemctl status 7"},
		"immutable":       {func(h *host) { h.config.refused = fmt.Errorf("it is immutable: chattr -i x (%w)", hostdns.ErrNotOurs) }, "warning|cannot be made to name us: it is immutable|chattr -i x"},
		"does not let go": {func(h *host) { h.running, h.config.system, h.config.resolver = true, true, "dhcpcd" }, "warning|does not let go|nohook resolv.conf"},
		"no NTP":          {func(h *host) { h.clock.unsynced = true }, "warning|nothing keeps the clock right|timedatectl set-ntp true"},
		"ourselves": {func(h *host) {
			h.running = true
			h.sockets = []portHolder{{Holder: server.Holder{Addr: at("127.0.0.1:53"), PID: 7}}}
		}, ""},
		"rule first": {func(h *host) {
			h.conflicts = []routing.Condition{{Kind: routing.ForeignRuleFirst, Text: rule, Fix: "ip rule add"}}
		}, "warning|comes before|ip rule add"},
		"other WireGuard": {func(h *host) {
			h.links = []routing.Iface{{Link: routing.Link{Name: "wg9", Up: true}, Kind: "wireguard"}}
		}, "warning|wg9|wg-quick down wg9"},
		"our WireGuard": {func(h *host) {
			h.links = []routing.Iface{{Link: routing.Link{Name: "wg0", Up: true}, Kind: "wireguard"}}
		}, ""},
		"flowtable":     {func(h *host) { h.flow = []string{"inet fw4 ft"} }, "warning|past our marks|nft delete flowtable inet fw4 ft"},
		"open key":      {func(h *host) { h.files = []fileFacts{{path: "/k", mode: 0o644}} }, "warning|0644|chmod 0600 /k"},
		"others' key":   {func(h *host) { h.files = []fileFacts{{path: "/k", mode: 0o600, uid: 5}} }, "warning|user 5|chown root /k"},
		"asks the dead": {func(h *host) { h.config.system, h.config.asked = true, true }, "error|no daemon|smartdns run"},
		"resolved's":    {func(h *host) { h.config.resolver = "systemd-resolved" }, "warning|systemd-resolved|system = true"},
		"not yet ours":  {func(h *host) { h.config.resolver, h.config.system = "NetworkManager", true }, "warning|NetworkManager|smartdns run"},
		"clock":         {func(h *host) { h.clock.known = h.clock.now.AddDate(1, 0, 0) }, "error|2026-03-01|date -s @"},
		"old list":      {func(h *host) { h.config.lists = []api.List{{Name: "cn", Entries: 1, Date: "2025-01-01"}} }, "warning|424 days|[list.cn]"},
		"empty list":    {func(h *host) { h.config.lists = []api.List{{Name: "cn", Source: "f"}} }, "warning|cn is empty|smartdns reload"},
		"disk":          {func(h *host) { h.space.disk = 1 << 20 }, "error|1 MiB are left|df -h"},
		"memory":        {func(h *host) { h.space.memory = 1 << 20 }, "warning|memory is short|"},
	} {
		h := healthy()
		c.change(&h)
		got := diagnose(h)
		if c.want == "" {
			if len(got) > 0 {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		want := strings.Split(c.want, "|")
		if len(got) != 1 || got[0].Severity != want[0] || !strings.Contains(got[0].What, want[1]) || !strings.Contains(got[0].Fix, want[2]) {
			t.Errorf("%s: %+v, want %q", name, got, want)
		}
	}
}

// What lacks, and who is told to give it, by whom a process belongs to.
func TestDoctorKnowsProcesses(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/dnsmasq.service\n":                           "dnsmasq.service",
		"0::/system.slice/system-foo.slice/foo@a.service/payload\n":    "foo@a.service",
		"12:pids:/system.slice/named.service\n0::/init.scope\n":        "named.service",
		"0::/user.slice/user-0.slice/user@0.service/app.slice/x.scope": "",
		"0::/docker/8c1f\n": "", "": "",
	} {
		if got := unitIn(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
	if f, lacks := (capabilities{}).judge(true, true, false); !lacks || !strings.Contains(f.What, "no CAP_NET_ADMIN and no CAP_NET_BIND_SERVICE") || f.Fix != "sudo smartdns doctor" {
		t.Errorf("%+v", f)
	}
	if f, lacks := (capabilities{bindService: true}).judge(true, true, true); !lacks || strings.Contains(f.What, "BIND") || !strings.Contains(f.Fix, "--cap-add NET_ADMIN") {
		t.Errorf("%+v", f)
	}
	if f, lacks := (capabilities{}).judge(false, false, true); lacks {
		t.Errorf("a resolver on a high port: %+v", f)
	}
}

// On a kernel that holds what a ufw and a wg-quick leave and with somebody on port 53, each is found;
// nothing is left behind.
func TestDoctorFindsWhatIsThere(t *testing.T) {
	netnstest.Require(t, "nft", "ip")
	dir := t.TempDir()
	key := filepath.Join(dir, "wg0.conf")
	file := filepath.Join(dir, "smartdns.toml")
	for path, text := range map[string]string{
		key:  "[Interface]\nPrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.9.0.2/24\n[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51820\n",
		file: "[listen]\nlan = [\"lan0\"]\nredirect = true\n[tunnel.wg0]\nconfig = \"" + key + "\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	netnstest.Do(t, netnstest.New(t), func() {
		sh := func(line string) string {
			out, err := exec.Command("sh", "-c", line).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
			return string(out)
		}
		sh(`ip link set lo up
ip link add lan0 type veth peer name lan1
ip addr add 192.168.8.1/24 dev lan0
ip link set lan0 up
ip rule add pref 100 lookup 51820
ip route add default dev lan0 table 51820
nft 'table ip filter { chain ufw-before-forward { ct state established accept; }; chain FORWARD { type filter hook forward priority 0; policy drop; jump ufw-before-forward; }; chain INPUT { type filter hook input priority 0; policy drop; }; }
table inet shop { chain forward { type filter hook forward priority 0; policy drop; jump wan; }; chain wan { oifname "wg0" accept; }; }'`)
		c, err := net.ListenPacket("udp", "127.0.0.1:53")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		const all = "nft list ruleset; ip rule; ip -6 rule; ip -d link; ip route show table all"
		before := sh(all)
		d := Doctor(t.Context(), Options{Config: file, Dirs: Dirs{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}, Log: slog.New(slog.DiscardHandler)})
		if after := sh(all); after != before {
			t.Errorf("the kernel was\n%s\nand is\n%s", before, after)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("files were made: %v, %v", entries, err)
		}
		for _, want := range []string{"port 53 of 127.0.0.1 over UDP is taken by ", "chain ip filter FORWARD of ufw drops", "chain ip filter INPUT of ufw drops what clients on lan0 ask us, at port 53, 5953 over TCP, UDP", `"ip rule pref 100 lookup 51820" comes before`} {
			if !slices.ContainsFunc(d.Findings, func(f api.Finding) bool { return strings.Contains(f.What, want) && f.Fix != "" }) {
				t.Errorf("not found: %s", want)
			}
		}
		for _, want := range []string{"nftables with sets, intervals and marks of flows", "connection tracking by netlink", "rules by mark (v4)", "rules by mark (v6)", "IPv6", "CAP_NET_ADMIN"} {
			if !slices.Contains(d.Kernel, api.Feature{Name: want, Has: true}) {
				t.Errorf("the kernel has no %s: %+v", want, d.Kernel)
			}
		}
		if d.Fine {
			t.Error("it is all fine")
		}
		for _, f := range d.Findings {
			switch {
			case strings.Contains(f.What, "inet shop"):
				t.Errorf("a chain that jumps to one for the tunnel: %s", f.What)
			case strings.Contains(f.What, "INPUT of ufw"):
				if f.Fix != "ufw allow in on lan0 to any port 53 && ufw allow in on lan0 to any port 5953" {
					t.Errorf("ufw would forget: %s", f.Fix)
				}
			case strings.Contains(f.What, "of ufw") && f.Fix != "ufw route allow in on lan0 out on wg0":
				t.Errorf("ufw would forget: %s", f.Fix)
			case strings.Contains(f.What, "rule pref 100"):
				sh(f.Fix)
				if now := sh("ip rule"); !strings.Contains(now, "5200:\tfrom all lookup 51820") || strings.Contains(now, "100:\t") {
					t.Errorf("%s makes\n%s", f.Fix, now)
				}
			}
		}
		for _, f := range d.Findings {
			if strings.Contains(f.What, "reading ") || strings.Contains(f.What, "trying the kernel") || strings.Contains(f.What, "does not take") {
				t.Errorf("the trial failed: %s", f.What)
			}
		}
		if t.Failed() {
			t.Logf("%+v", d)
		}
	})
}
