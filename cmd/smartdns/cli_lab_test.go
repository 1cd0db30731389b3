package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
	"smartdns/web/api"
)

// exitCode is that of a command that was run; -1 when there is none.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return -1
}

// says runs a command that must end with the given exit code, and returns its
// standard output, which must be readable.
func (w *world) says(code int, args ...string) string {
	w.t.Helper()
	out, err := w.cli(args...)
	if exitCode(err) != code {
		w.t.Errorf("smartdns %s: %v; want exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
	if !slices.Contains(args, "--json") {
		readable(w.t, comments(args[0], out))
	}
	return out
}

// comments are the lines of a plan that are for people. Commands and rules are
// as wide as they are.
func comments(command, out string) string {
	switch command {
	case "config": // TOML is not ours to break
		return ""
	case "plan", "diff", "cleanup":
	default:
		return out
	}
	var all []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			all = append(all, strings.ReplaceAll(line, "\t", "        "))
		}
	}
	return strings.Join(all, "")
}

// inOrder fails unless text has every part, in this order. Runs of blanks and
// ends of lines count as one blank.
func inOrder(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	rest := strings.Join(strings.Fields(text), " ")
	for _, p := range parts {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			t.Errorf("%s does not say %q where it should:\n%s", what, p, text)
			return
		}
		rest = after
	}
}

// explained is the lab's configuration with a line of each kind.
func explained(config, dir string) string {
	office := filepath.Join(dir, "office.txt")
	config = strings.Replace(config, "names = [\n", `names = [
  { match = "ads.test",        answer = "block" },
  { match = "nas.test",        answer = ["192.168.8.9", "fd00:8::9"] },
  { match = "alias.test",      answer = "cname:www.bank.test" },
  { match = "www.bank.test",   ask = "foreign", via = "direct" },
  { match = "n9.blocked.test", ask = "domestic" },
  { match = "list:cn-domains", ask = "domestic" },
`, 1)
	return strings.Replace(config, "addresses = [\n", `addresses = [
  { match = ["10.1.0.0/16", "10.2.0.0/16", "list:office", "93.184.219.3"], via = "direct" },
`, 1) + "\n[list.office]\nfile = \"" + office + "\"\n"
}

// query explains every kind of decision, and its exit code answers whether it
// is NOERROR.
func TestQueryExplains(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.Dir, "office.txt"), []byte("# the office\n93.184.219.4/32\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.config = explained(w.config, w.Dir)
	w.start()
	w.waitUp()
	const wg0 = "fwmark 0x2000000 → table 52001 → wg0 from"
	const direct = "no fwmark → main table → wan0 via"
	for _, c := range []struct {
		query string
		code  int
		want  []string
	}{
		{"www.example.com", 0, []string{
			"www.example.com A NOERROR", "not cached", `rule names[8] "*" ask auto smartdns.toml:`, "auto foreign-first: it is abroad (93.184.216.34,",
			"asked foreign", "via wg0", "93.184.216.34 abroad no list matches via wg0", `rule addresses[2] "*" smartdns.toml:`,
			"marked wg0_4 for 1h kernel acknowledged", "kernel in wg0_4,", "left → " + wg0, "peer", "handshake", "ago",
		}},
		{"www.example.com", 0, []string{"NOERROR", "sealed", "learned", "ago", "cached the foreign side's answer", "kernel acknowledged", wg0}},
		{"www.example.com AAAA --from 192.168.8.20", 0, []string{"www.example.com AAAA", "client 192.168.8.20", "2606:2800:220:1:248:1893:25c8:1946", "wg0_6"}},
		{"www.example.com HTTPS", 0, []string{
			"https 1 . alpn=h3,h2 ipv4hint=93.184.217.34 ipv6hint=2606:2800:220:1::17:34 ttl",
			"93.184.217.34 (hint) abroad", "marked wg0_4", "2606:2800:220:1::17:34 (hint) abroad", "marked wg0_6",
		}},
		{"www.taobao.com", 0, []string{
			`rule names[5] "list:cn-domains" ask domestic`, "taobao.com in list cn-domains:", "asked domestic", "via direct",
			"cname www.taobao.com.danuoyi.tbcache.com ttl 1m", "39.156.68.1 home 39.128.0.0/10 in embedded:", "via direct",
			`rule addresses[1] ["private", "home"]`, "marked direct_4 for 1h kernel acknowledged", "in direct_4,", direct,
		}},
		{"many.foreign.test", 0, []string{
			`rule names[7] ["foreign.test", …] ask foreign`, "93.184.219.1 abroad", "93.184.219.2 abroad", "marked wg0_4",
			"93.184.219.3 abroad", `rule addresses[0] ["93.184.219.3", …]`, "no mark the rule for its prefix is a static set", direct,
			"93.184.219.4 abroad", `rule addresses[0] ["list:office", …]`, "93.184.219.4/32 in list office:2", direct,
		}},
		{"chain.foreign.test", 0, []string{"cname chain2.foreign.test", "cname chain3.foreign.test", "93.184.218.5"}},
		{"alias.test", 0, []string{
			`rule names[2] "alias.test" answered here: cname`, "then www.bank.test, by a rule of its own",
			`rule names[3] "www.bank.test" ask foreign, via direct`, "asked foreign", "cname www.bank.test", "93.184.216.40 abroad no list matches via direct",
			`rule names[3] "www.bank.test"`, "marked direct_4", direct,
		}},
		{"cross.cn.test", 0, []string{
			`rule names[6] ["cn.test", …] ask domestic`, "asked domestic", "looks forged: it leads out of the domestic side", "asked foreign", "as second opinion", "93.184.216.40",
		}},
		{"n9.blocked.test", 0, []string{
			"asked domestic", "looks forged: 203.98.7.65 is known from forged answers", "asked foreign", "as second opinion", "93.184.0.9 abroad",
		}},
		{"private.foreign.test", 0, []string{
			"192.168.8.1 private 192.168.0.0/16 in private taken out", "private in an answer for a public name", "93.184.218.6", "because of what was taken out EDE 17",
		}},
		{"teredo.foreign.test AAAA", 0, []string{"2001::1f0d:5e01 unknown 2001::/32 in bogon taken out"}},
		{"endpoint.foreign.test", 0, []string{"45.76.1.2 abroad", "no mark a WireGuard endpoint"}},
		{"nodata.foreign.test", 0, []string{"answer there is no A record"}},
		{"nodata.foreign.test TXT", 0, []string{`txt "no address" ttl`}},
		{"nosuch.foreign.test", 1, []string{"NXDOMAIN", "asked foreign", "NXDOMAIN"}},
		{"ads.test", 1, []string{"NXDOMAIN", `names[0] "ads.test" answered here: block`, "because blocked by", "EDE 15"}},
		{"nas.test", 0, []string{`names[1] "nas.test" answered here: address`, "192.168.8.9 private", "no mark private"}},
		{"localhost AAAA", 0, []string{"answered here: special-use localhost", "::1 private"}},
		{"1.8.168.192.in-addr.arpa PTR", 1, []string{"NXDOMAIN", "special-use"}},
	} {
		out := w.says(c.code, append([]string{"query"}, strings.Fields(c.query)...)...)
		inOrder(t, "query "+c.query, out, c.want...)
	}
	for _, q := range []string{"a..b", "www.example.com BAD", "www.example.com --from nobody", strings.Repeat("a", 64)} {
		if out := w.says(exitUsage, append([]string{"query"}, strings.Fields(q)...)...); out != "" {
			t.Errorf("query %s: %s", q, out)
		}
	}
	w.explainsRoutes()
	w.printsJSON()
	w.printsTheRest()
}

func (w *world) explainsRoutes() {
	w.t.Helper()
	s, err := w.Client.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		to   string
		want []string
	}{
		{"93.184.216.34", []string{"93.184.216.34 abroad", "via wg0", "kernel in wg0_4,", "wg0", "flow tcp 192.168.8.20:", "→ 93.184.216.34:443 wg0"}},
		{"www.baidu.com", []string{"www.baidu.com A NOERROR", "39.156.66.10 home", "via direct"}},
		{"93.184.219.4", []string{`rule addresses[0] ["list:office", …]`, "93.184.219.4/32 in list office:2", "no fwmark → main table → wan0"}},
		{"192.168.8.20", []string{"private", "no mark in a network of ", "main table → lan0"}},
		{"10.9.0.1", []string{"via wg0", "rule no line of the file: its own network is always wg0's", "wg0"}},
		{"224.0.0.251", []string{"via direct", "rule no line of the file: link-local and multicast stay on their link"}},
		{"::1", []string{"local table → lo"}},
	} {
		inOrder(w.t, "route "+c.to, w.says(0, "route", c.to), c.want...)
	}
	w.says(exitUsage, "route", "x..y")
	w.says(exitNo, "route", "nosuch.foreign.test")
}

// printsJSON checks that every command that prints data has --json, of which
// every field has its place in web/api.
func (w *world) printsJSON() {
	w.t.Helper()
	for _, c := range []struct {
		into any
		code int
		args string
	}{
		{&api.Decision{}, 0, "query www.example.com"}, {&api.Decision{}, 1, "query nosuch.foreign.test"}, {&api.Decision{}, 0, "query cross.cn.test HTTPS"},
		{&api.Route{}, 0, "route 93.184.216.34"}, {&api.Route{}, 0, "route www.example.com"}, {&api.Status{}, 0, "status"}, {&api.Marks{}, 0, "marks"},
		{&api.Steps{}, 0, "plan"}, {&api.Steps{}, 0, "plan --sets"}, {&api.Steps{}, 0, "diff"}, {&api.Checked{}, 0, "check"},
		{&api.Config{}, 0, "config"}, {&api.Version{}, 0, "version"}, {&api.Done{}, 0, "reload"}, {&api.Done{}, 0, "marks forget 93.184.216.34"},
	} {
		decode(w.t, w.says(c.code, append(strings.Fields(c.args), "--json")...), c.into)
	}
}

func (w *world) printsTheRest() {
	w.t.Helper()
	out := w.says(0, "status")
	if !strings.HasPrefix(out, "fine: resolving, and routing through wg0 ") {
		w.t.Errorf("the first line of status does not say whether it is fine:\n%s", out)
	}
	inOrder(w.t, "status", out, "listen 127.0.0.1:53,", "clients", "tunnel wg0 up 45.76.1.2:51820 handshake", "side domestic via direct", "223.5.5.5 up",
		"side foreign via wg0", "list office", "1 entry", "list cn-domains embedded", "entries", "marks direct", "room for 262144 each", "marks wg0",
		"set home", "classified this host,", "received", "resolver", "poison", "marks", "flows")
	if regexp.MustCompile(`[;r] +0 \w`).MatchString(out) {
		w.t.Errorf("status shows counters that are zero:\n%s", out)
	}
	if out := w.says(0, "status", "-q"); out != "" {
		w.t.Errorf("status -q says %s", out)
	}
	w.says(0, "query", "www.example.com")
	inOrder(w.t, "marks", w.says(0, "marks"), "93.184.216.34 wg0", "left", "39.156.68.1 direct")
	inOrder(w.t, "marks forget", w.says(0, "marks", "forget", "93.184.216.34"), "93.184.216.34 is no longer marked")
	w.says(exitNo, "marks", "forget", "93.184.216.34")
	w.says(exitUsage, "marks", "forget", "nobody")
	inOrder(w.t, "check", w.says(0, "check"), "DNS = 10.9.0.1 is not applied", "list office: 1 entries", "list cn-domains: ", ": fine")
	inOrder(w.t, "plan", w.says(0, "plan"), "# DNS is served at", "# tunnel wg0", "ip rule add", "nft -f -", "EOF")
	if out := w.says(0, "diff"); out != "" {
		w.t.Errorf("diff while the daemon runs:\n%s", out)
	}
	w.says(0, "config", "--effective")
	if out, err := w.cli("cleanup"); exitCode(err) != exitNo || out != "" || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", w.daemon.Pid())) {
		w.t.Errorf("cleanup while the daemon runs: %v\n%s", err, out)
	}
	w.stop()
	inOrder(w.t, "diff without the daemon", w.says(exitNo, "diff"), "ip link add wg0", "ip rule add")
	if out := w.says(0, "cleanup"); out != "" {
		w.t.Errorf("cleanup after a stop:\n%s", out)
	}
	w.says(exitNo, "status")
}

// Names that hold what a terminal acts on are shown, not obeyed: by the
// commands and in the log, where one event is one line (SECURITY N-25, W-07).
func TestHostileNamesInTheLab(t *testing.T) {
	w := newWorld(t)
	const evil = `a\027[2J\010\013b\000\226\128\174c%s.foreign.test.`
	for _, record := range []string{
		`evil.foreign.test. CNAME ` + evil, evil + ` A 93.184.218.200`, evil + ` TXT "\027]0;owned\007\226\128\174"`,
		`mx.foreign.test. MX 10 ` + evil, `ptr.foreign.test. PTR ` + evil, `svc.foreign.test. HTTPS 1 ` + evil + ` alpn=h3`,
		`srv.foreign.test. SRV 1 2 3 ` + evil, `ns.foreign.test. NS ` + evil,
	} {
		if err := w.Zone.Add(lab.Abroad, record); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		t.Fatal(err)
	}
	d, err := w.Gateway.StartDaemon(w.context(20*time.Second), []string{w.exe}, w.config, "-v")
	if err != nil {
		t.Fatal(err)
	}
	w.daemon = d
	w.waitUp()
	for _, c := range []struct{ query, want string }{
		{"evil.foreign.test", `cname a\027[2J\010\013b\000\226\128\174c%s.foreign.test`},
		{strings.TrimSuffix(evil, ".") + " TXT", `txt "\027]0;owned\007\226\128\174"`},
		{"mx.foreign.test MX", `mx 10 a\027[2J`}, {"ptr.foreign.test PTR", `ptr a\027`}, {"svc.foreign.test HTTPS", `https 1 a\027`},
		{"srv.foreign.test SRV", `srv 1 2 3 a\027`}, {"ns.foreign.test NS", `ns a\027`},
	} {
		out := w.says(0, append([]string{"query"}, strings.Fields(c.query)...)...)
		inOrder(t, "query "+c.query, out, c.want)
		out = w.says(0, append([]string{"query", "--json"}, strings.Fields(c.query)...)...)
		decode(t, out, &api.Decision{})
		if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') && r != '…' && r != '→' && r != 'µ' }); i >= 0 {
			t.Errorf("query --json %s: %q", c.query, out[i:min(i+20, len(out))])
		}
	}
	if m := w.ask(strings.TrimSuffix(evil, "."), lab.Question{Type: dns.TypeA}); len(lab.Addresses(m)) != 1 {
		t.Errorf("the name does not resolve: %v", m.Rcode)
	}
	for _, args := range [][]string{{"marks"}, {"status"}} {
		w.says(0, args...)
	}
	w.stop()
	for line := range strings.Lines(w.daemon.Log()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) || !strings.HasPrefix(line, "level=") {
			t.Errorf("a line of the log: %q", line)
		}
	}
}

// The tunnel's keys and the password of a proxy are in no output, no file of
// ours, no argument and no variable (SECURITY W-09).
func TestKeysAreNowhere(t *testing.T) {
	w := newWorld(t)
	const password = "pass-word-of-the-proxy"
	w.config = strings.Replace(w.config, "names = [\n", "names = [\n  { match = \"corp.example\", ask = \"office\" },\n", 1) +
		"\n[side.office]\nservers = [\"tcp://192.0.2.53\"]\nsocks5 = \"al:" + password + "@127.0.0.1:1080\"\n"
	if err := w.Gateway.WriteConfig(w.config); err != nil {
		t.Fatal(err)
	}
	d, err := w.Gateway.StartDaemon(w.context(20*time.Second), []string{w.exe}, w.config, "-v")
	if err != nil {
		t.Fatal(err)
	}
	w.daemon = d
	w.waitUp()
	file, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	var secrets []string
	for _, m := range regexp.MustCompile(`(?m)^(?:PrivateKey|PresharedKey) = (.*)$`).FindAllStringSubmatch(string(file), -1) {
		raw, err := base64.StdEncoding.DecodeString(m[1])
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, m[1], strings.TrimRight(m[1], "="), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), string(raw))
	}
	if len(secrets) != 10 {
		t.Fatalf("%d forms of keys in the file, want 2 keys in 5 forms", len(secrets))
	}
	secrets = append(secrets, password, base64.StdEncoding.EncodeToString([]byte(password)), hex.EncodeToString([]byte(password)))
	none := func(where, text string) {
		t.Helper()
		if text == "" {
			t.Errorf("%s: nothing to search", where)
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s holds a key", where)
			}
		}
	}
	for _, args := range []string{
		"status", "status --json", "doctor --json", "query www.example.com", "query www.example.com --json", "query www.corp.example", "query www.corp.example --json", "cache", "cache list", "verdicts", "diff", "route 93.184.216.34 --json", "marks", "plan --sets",
		"plan --json", "check", "check --json", "config --effective", "config --json", "reload",
	} {
		out, err := w.cli(append(strings.Fields(args), "-v")...)
		none("smartdns "+args, fmt.Sprint(out, err))
	}
	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	_, _ = w.cli("doctor", "--bundle", bundle) // what it finds is not the question
	listed, err := exec.Command("tar", "-tzf", bundle).Output()
	if err != nil || strings.Count(string(listed), "\n") < 12 || !strings.Contains(string(listed), "/status.json\n") || !strings.Contains(string(listed), "/tunnels/wg0.conf\n") {
		t.Errorf("the bundle: %v\n%s", err, listed)
	}
	content, err := exec.Command("tar", "-xzOf", bundle).Output()
	if err != nil || !strings.Contains(string(content), "PublicKey = ") || !strings.Contains(string(content), "nft -f -") || strings.Contains(string(content), "\nnot read: ") {
		t.Errorf("the bundle: %v\n%s", err, content)
	}
	none("the bundle", string(content))
	for _, path := range []string{"cmdline", "environ"} {
		out, err := w.Gateway.Exec(w.context(5*time.Second), "cat", fmt.Sprintf("/proc/%d/%s", w.daemon.Pid(), path))
		if err != nil {
			t.Fatal(err)
		}
		none(path, out)
	}
	if out, err := w.cli("config", "--effective"); err != nil || !strings.Contains(out, "al:***@127.0.0.1:1080") {
		t.Errorf("the proxy in config --effective: %v\n%s", err, out)
	}
	if err := w.Gateway.SetLink("wg0", false); err != nil { // a repair is logged too
		t.Fatal(err)
	}
	w.waitUp()

	// A broken file is quoted without its keys.
	for _, broken := range []string{
		strings.Replace(string(file), "PrivateKey = ", "PrivateKey = x", 1),
		strings.Replace(string(file), "PresharedKey = ", "PresharedKey = x", 1),
		strings.Replace(string(file), "PrivateKey = ", "PrivatKey = ", 1),
		strings.Replace(string(file), "PrivateKey = ", "PrivateKey ", 1),
		strings.Replace(string(file), "[Interface]", "[Interfce]", 1),
	} {
		if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := w.cli("check")
		if exitCode(err) != exitNo {
			t.Errorf("check of a broken file: %v\n%s", err, out)
		}
		none("check of a broken file", fmt.Sprint(out, err))
		out, err = w.cli("reload")
		none("reload of a broken file", fmt.Sprint(out, err))
	}
	w.stop()
	none("the log", w.daemon.Log())
	state, err := os.ReadDir(w.Gateway.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range state {
		b, err := os.ReadFile(filepath.Join(w.Gateway.StateDir(), f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		none(f.Name(), string(b))
	}
}

// sockets are the gateway's open UDP and listening TCP sockets.
func (w *world) sockets() []string {
	w.t.Helper()
	var all []string
	for _, network := range []string{"udp", "udp6", "tcp", "tcp6"} {
		out, err := w.Gateway.Exec(w.context(5*time.Second), "cat", "/proc/net/"+network)
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 3 && f[0] != "sl" && (strings.HasPrefix(network, "udp") || f[3] == "0A") {
				all = append(all, network+" "+f[1])
			}
		}
	}
	slices.Sort(all)
	return all
}

// Without a file we listen on the loopback addresses' port 53, and nowhere else
// (SECURITY W-13). The control socket is open to its owner and group alone
// (W-03).
func TestListenersByDefault(t *testing.T) {
	w := newWorld(t)
	before := w.sockets()
	d, err := w.Gateway.Start(w.context(20*time.Second), w.exe, "run", "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	w.daemon = d
	// There may be a UDP socket for each core.
	got := slices.Compact(slices.DeleteFunc(w.sockets(), func(s string) bool { return slices.Contains(before, s) }))
	want := []string{
		"tcp 0100007F:0035", "tcp6 00000000000000000000000001000000:0035",
		"udp 0100007F:0035", "udp6 00000000000000000000000001000000:0035",
	}
	if !slices.Equal(got, want) {
		t.Errorf("listening on %v, want %v", got, want)
	}
	out, err := w.Gateway.Exec(w.context(5*time.Second), "stat", "-c", "%F %a", filepath.Join(w.Gateway.RunDir(), "control.sock"), w.Gateway.RunDir())
	if err != nil || out != "socket 660\ndirectory 750\n" {
		t.Errorf("the control socket and its directory: %q, %v", out, err)
	}
	out, err = w.Gateway.Exec(w.context(5*time.Second), "stat", "-c", "%a", w.Gateway.StateDir())
	if err != nil || out != "700\n" {
		t.Errorf("the state directory: %q, %v", out, err)
	}
	if out, err := w.cliAs("nobody", "status"); exitCode(err) != exitNo || out != "" || !strings.Contains(err.Error(), "permission denied (be root, or in the group smartdns)") {
		t.Errorf("status as nobody: %v\n%s", err, out)
	}
	w.stop()
}

// cliAs is cli as another user, or skips the test.
func (w *world) cliAs(user string, args ...string) (string, error) {
	w.t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		w.t.Skip("SKIPPED: no setpriv, so there is no other user: " + err.Error())
	}
	if os.Getuid() != 0 {
		w.t.Skip("SKIPPED: only root can be another user")
	}
	all := append([]string{"--reuid", user, "--regid", "nogroup", "--clear-groups", w.exe}, args...)
	return w.Gateway.Exec(w.context(20*time.Second), setpriv, append(all, "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())...)
}
