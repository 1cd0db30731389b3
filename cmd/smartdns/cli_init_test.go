package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/configs/draft"
	"smartdns/web/api"
)

const quickFile = `[Interface]
PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
Address = 10.9.0.2/32
DNS = 10.9.0.1
PostUp = true

[Peer]
PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
Endpoint = vpn.example.com:51820
AllowedIPs = 0.0.0.0/0, ::/0
`

// write makes a file in dir and returns its path.
func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

// What init writes passes check, says what it makes of the tunnel's file, and
// is never replaced unasked.
func TestInitWritesAFileThatIsFine(t *testing.T) {
	dir := t.TempDir()
	tunnel := write(t, dir, "wg0.conf", quickFile, 0o600)
	out := filepath.Join(dir, "etc", "smartdns.toml")
	code, text, errs := command(t, "init", "--tunnel", tunnel, "--lan", "br-lan", "--listen", "127.0.0.1", "--system", "-o", out)
	if code != exitYes || errs != "" {
		t.Fatalf("exit %d\n%s%s", code, text, errs)
	}
	for _, want := range []string{"10.9.0.2/32", "wg0.conf:4: DNS = 10.9.0.1 is not applied", "wg0.conf:5: PostUp is not run", out, "smartdns check -c " + out} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("does not say %q:\n%s", want, text)
		}
	}
	readable(t, text)
	if code, text, errs := command(t, "check", "-c", out); code != exitYes {
		t.Errorf("check: exit %d\n%s%s", code, text, errs)
	}
	c, err := configs.Load(out)
	if err != nil || len(c.Tunnels) != 1 || len(c.Listen.LAN) != 1 || len(c.Listen.DNS) != 1 || !c.Listen.System || len(c.Warnings()) > 0 {
		t.Errorf("%v %v", c, err)
	}
	before, _ := os.ReadFile(out)
	code, text, errs = command(t, "init", "-c", out, "--lan", "eth1")
	if after, _ := os.ReadFile(out); code != exitNo || text != "" || !strings.Contains(errs, "--force") || string(after) != string(before) {
		t.Errorf("a second time: exit %d\n%s%s", code, text, errs)
	}
	code, _, errs = command(t, "init", "-c", out, "--lan", "eth1", "--force")
	old, _ := os.ReadFile(out + ".old")
	if after, _ := os.ReadFile(out); code != exitYes || string(old) != string(before) || !strings.Contains(string(after), "eth1") {
		t.Errorf("--force: exit %d\n%s", code, errs)
	}
}

// A tunnel's file that cannot be used is an error with its line, and nothing is
// written.
func TestInitRefusesATunnelThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "smartdns.toml")
	for text, want := range map[string]string{
		strings.Replace(quickFile, "10.9.0.2/32", "nonsense", 1): "wg1.conf:3: [Interface] Address: ",
		"": "has no [Interface]",
	} {
		tunnel := write(t, dir, "wg1.conf", text, 0o600)
		code, stdout, errs := command(t, "init", "--tunnel", tunnel, "-o", out)
		if code != exitNo || stdout != "" || !strings.Contains(errs, want) {
			t.Errorf("exit %d, want %q\n%s%s", code, want, stdout, errs)
		}
	}
	readable := write(t, dir, "wg2.conf", quickFile, 0o644)
	if code, _, errs := command(t, "init", "--tunnel", readable, "-o", out); code != exitNo || !strings.Contains(errs, "chmod 600") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	odd := write(t, dir, "a long name.conf", quickFile, 0o600)
	if code, _, errs := command(t, "init", "--tunnel", odd, "-o", out); code != exitNo || !strings.Contains(errs, "name of an interface") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was written")
	}
}

func TestInitUsage(t *testing.T) {
	for args, want := range map[string]string{
		"init x":              "--from",
		"init -c a -o b":      "one of them",
		"init --home IR -o -": "--home-file",
		"init --home IR --home-file /etc/hosts -o -": "--domestic",
		"init --home-file /etc/hosts -o -":           "--home",
	} {
		if code, out, errs := command(t, strings.Fields(args)...); code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

// Another country than the one that is part of the program comes with its file.
func TestInitOfAnotherHome(t *testing.T) {
	dir := t.TempDir()
	prefixes := write(t, dir, "ir.txt", "2.144.0.0/14\n5.22.0.0/17\n", 0o644)
	out := filepath.Join(dir, "smartdns.toml")
	code, text, errs := command(t, "init", "--home", "ir", "--home-file", prefixes, "--domestic", "192.168.8.1", "-o", out)
	if code != exitYes {
		t.Fatalf("exit %d\n%s%s", code, text, errs)
	}
	c, err := configs.Load(out)
	if err != nil || c.Decide.Home != "IR" || len(c.Geo.Sources) != 2 || c.Sides[0].Servers[0].Text != "192.168.8.1" || len(c.Warnings()) > 0 {
		t.Errorf("%+v %v", c, err)
	}
}

// The file of another program: what is printed, and as JSON.
func TestInitFrom(t *testing.T) {
	dir := t.TempDir()
	nets := write(t, dir, "nets.conf", "1.2.3.0/24\n5.6.7.0/24\n", 0o644)
	conf := write(t, dir, "it.conf", `cache-persist no
server 223.5.5.5
server-tls 8.8.8.8 -group abroad -e
proxy-server socks5://me:secret@127.0.0.1:1080 -name p
server-tls 1.1.1.1 -group hidden -e -proxy p
domain-set -name nets -file `+nets+`
nameserver /example.com/abroad
nameserver /hidden.example/hidden
nameserver /domain-set:nets/abroad
speed-check-mode ping
speed-check-mode none
bogus-nxdomain 198.51.100.1
user nobody
`, 0o644)
	out := filepath.Join(dir, "smartdns.toml")
	code, text, errs := command(t, "init", "--from", conf, "-o", out)
	if code != exitYes || errs != "" {
		t.Fatalf("exit %d\n%s%s", code, text, errs)
	}
	readable(t, text)
	for _, want := range []string{"smartdns (pymumu): " + conf, "nothing is routed", "Not carried over (3 lines)", "it.conf:10", "and line 11", "nothing is pinged", "bogus-addresses.txt", "it holds prefixes"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("tells a password:\n%s", text)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file with a password: %v %v", info.Mode(), err)
	}
	if code, text, errs := command(t, "check", "-c", out); code != exitYes {
		t.Errorf("check: exit %d\n%s%s", code, text, errs)
	}
	code, text, _ = command(t, "init", "--from", "pymumu:"+conf, "-o", out, "--force", "--json")
	var v api.Initialized
	if decode(t, text, &v); code != exitYes || v.Program != string(draft.Pymumu) || len(v.Written) != 2 || len(v.Notes) != 4 || v.Next == "" {
		t.Errorf("exit %d, %+v", code, v)
	}
	code, text, errs = command(t, "init", "--from", conf, "-o", "-")
	if _, err := configs.Parse(strings.NewReader(text), "it"); code != exitYes || err != nil || !strings.Contains(errs, "nothing is pinged") {
		t.Errorf("-o -: exit %d, %v\n%s%s", code, err, text, errs)
	}
	if code, _, errs := command(t, "init", "--from", filepath.Join(dir, "none"), "-o", "-"); code != exitNo || !strings.Contains(errs, "none") {
		t.Errorf("a file that is not there: exit %d\n%s", code, errs)
	}
	nobody := write(t, dir, "nobody.conf", "hello world\n", 0o644)
	if code, _, errs := command(t, "init", "--from", nobody, "-o", "-"); code != exitNo || !strings.Contains(errs, "PROGRAM:"+nobody) {
		t.Errorf("nobody's file: exit %d\n%s", code, errs)
	}
}

// The questions of a terminal: each is asked again until its answer can be.
func TestInitAsks(t *testing.T) {
	dir := t.TempDir()
	tunnel := write(t, dir, "wg0.conf", quickFile, 0o600)
	other := write(t, dir, "wg1.conf", "nonsense", 0o600)
	ask := func(answers ...string) (draft.Answers, string, error) {
		var out strings.Builder
		var a draft.Answers
		q := questions{in: newLines(strings.NewReader(strings.Join(answers, "\n") + "\n")), out: &out}
		err := q.ask(&a, facts{tunnels: []string{tunnel}, links: []string{"eth0", "br-lan"}})
		return a, out.String(), err
	}
	a, out, err := ask("", "br-lan", "", "", "")
	if err != nil || len(a.Tunnels) != 1 || a.Tunnels[0] != tunnel || len(a.LAN) != 1 || a.Listen != nil || !a.System || a.Home != "" {
		t.Errorf("%+v, %v\n%s", a, err, out)
	}
	a, out, err = ask(other, "none", "eth9", "none", "here", "192.0.2.1:5300", "maybe", "no", "Iran", "cn")
	if err != nil || len(a.Tunnels) != 0 || len(a.LAN) != 0 || len(a.Listen) != 1 || a.System || a.Home != "" {
		t.Errorf("%+v, %v\n%s", a, err, out)
	}
	for _, want := range []string{"wg1.conf:1: ", `no interface "eth9"`, "here", "yes or no", "two letters"} {
		if !strings.Contains(out, want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
	if _, _, err := ask("", "br-lan"); err == nil {
		t.Error("goes on without answers")
	}
}

// Every host of the tests of package draft, with its files where they are said
// to be, becomes a file that check finds fine.
func TestInitFromCompiles(t *testing.T) {
	hosts, err := filepath.Glob("../../configs/draft/testdata/*/args")
	if err != nil || len(hosts) < 4 {
		t.Fatalf("%d hosts, %v", len(hosts), err)
	}
	for _, file := range hosts {
		from := filepath.Dir(file)
		t.Run(filepath.Base(from), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "i") // short, for lines that fit a terminal
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			here := strings.NewReplacer("/etc/", dir+"/etc/")
			err = filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				to := filepath.Join(dir, strings.TrimPrefix(p, from))
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				return os.WriteFile(to, []byte(here.Replace(string(b))), 0o644)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(dir, "etc/wireguard"), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "etc/wireguard"), "wg0.conf", quickFile, 0o600)
			b, err := os.ReadFile(filepath.Join(dir, "args"))
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"init", "-o", filepath.Join(dir, "etc/smartdns/smartdns.toml")}
			line, quoted, _ := strings.Cut(strings.TrimSpace(string(b)), "'")
			for i, word := range strings.Fields(line) {
				if !strings.HasPrefix(word, "-") && (i == 0 || !strings.HasPrefix(strings.Fields(line)[i-1], "-")) {
					args = append(args, "--from")
				}
				args = append(args, word)
			}
			if quoted != "" {
				args = append(args, "--from", strings.TrimSuffix(quoted, "'"))
			}
			code, out, errs := command(t, args...)
			if code != exitYes {
				t.Fatalf("exit %d\n%s%s", code, out, errs)
			}
			readable(t, out)
			if code, out, errs := command(t, "check", "-c", filepath.Join(dir, "etc/smartdns/smartdns.toml")); code != exitYes {
				t.Errorf("check: exit %d\n%s%s", code, out, errs)
			}
		})
	}
}
