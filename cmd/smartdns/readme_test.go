package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"smartdns/configs"
	"smartdns/lab"
)

// block is a fenced block of README.md.
type block struct {
	kind string // what follows the fence: "sh", "toml", or ""
	text string
	line int
}

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllSubmatchIndex(b, -1) {
		all = append(all, block{string(b[m[2]:m[3]]), string(b[m[4]:m[5]]), 1 + strings.Count(string(b[:m[0]]), "\n")})
	}
	return all
}

// Every config block of README.md is valid without a warning, and every
// command of it runs: in the lab's gateway, whose /etc is its own, with the
// block before it as the file.
func TestReadme(t *testing.T) {
	w := newWorldAlone(t)
	exe := filepath.Join(t.TempDir(), "smartdns")
	if err := os.Symlink(w.exe, exe); err != nil {
		t.Fatal(err)
	}
	sbin := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(exe)+":"+os.Getenv("PATH"))
	t.Setenv("SSL_CERT_FILE", w.Gateway.AuthorityFile())
	prepare := "install -d /etc/wireguard /etc/smartdns && install -m 0600 " + w.Gateway.WireGuardFile() +
		" /etc/wireguard/wg0.conf && echo example.org > /etc/smartdns/foreign.txt"
	w.inGateway(prepare)
	for file, text := range map[string]string{ // of other programs
		"/etc/dnsmasq.conf":           "server=223.5.5.5\nserver=/example.org/tls.example/9.9.9.9\ndhcp-range=192.168.8.100,192.168.8.200\n",
		"/etc/mosdns/config.yaml":     "plugins:\n  - tag: out\n    type: forward\n    args: {upstreams: [{addr: 223.5.5.5}]}\n  - tag: main\n    type: sequence\n    args: [{exec: $out}]\n",
		"/etc/smartdns/smartdns.conf": "server 223.5.5.5\naddress /ads.example.com/#\n",
		// A second tunnel.
		"/etc/wireguard/wg1.conf": "[Interface]\nPrivateKey = MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=\nAddress = 10.10.0.2/32\n" +
			"[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nEndpoint = 45.77.1.2:51820\nAllowedIPs = 0.0.0.0/0\n",
		// Lists that others publish.
		"/etc/smartdns/accelerated-domains.china.conf": "server=/a.cn/114.114.114.114\n",
		"/etc/smartdns/gfwlist.txt":                    "W0F1dG9Qcm94eSAwLjIuOV0KfHxnb29nbGUuY29tCkBAfHxkbC5nb29nbGUuY29tCg==\n",
		"/etc/smartdns/ads.hosts":                      "127.0.0.1 localhost\n0.0.0.0 ads.example.com\n",
		"/etc/smartdns/office-nets.txt":                "198.51.100.0/24\n",
		"/etc/smartdns/delegated-ripencc-latest":       "2|ripencc|20260214|1|19830613|20260213|+1000\nripencc|IR|ipv4|2.144.0.0|262144|20100101|allocated\n",
	} {
		w.inGateway("install -D /dev/stdin " + file + " <<'EOF'\n" + text + "EOF")
	}
	// Three categories of one name or two, as v2ray writes them.
	w.inGateway("base64 -d > /etc/smartdns/dlc.dat <<< Cg4KAkNOEggIAhIEYS5jbgocCg9HRU9MT0NBVElPTi0hQ04SCQgCEgVhLm9yZwolCgZHT09HTEUSCQgCEgVnLmNvbRIQCAISBGcuY24aBgoCY24QAQ==")
	var daemon *lab.Process
	stop := func() {
		if daemon == nil {
			return
		}
		if err := daemon.Stop(w.context(20 * time.Second)); err != nil {
			t.Error(err)
		}
		daemon = nil
	}
	defer stop()
	start := func(args ...string) {
		stop()
		d, err := w.Gateway.Start(w.context(20*time.Second), exe, args...)
		if err != nil {
			t.Fatal(err)
		}
		daemon = d
	}
	ran := 0
	for _, b := range readmeBlocks(t) {
		switch b.kind {
		case "toml":
			// The lab's LAN interface has a name of its own.
			text := strings.ReplaceAll(b.text, "br-lan", "lan0")
			c, err := configs.Parse(strings.NewReader(text), "README.md")
			if err != nil {
				t.Fatalf("README.md:%d: %v", b.line, err)
			}
			for _, warning := range c.Warnings() {
				t.Errorf("README.md:%d: %s", b.line, warning)
			}
			w.inGateway("cat > /etc/smartdns/smartdns.toml <<'EOF'\n" + text + "EOF")
			stop()
			if strings.Contains(text, "redirect") { // nothing but the file changed since the first setup
				start("run")
			}
		case "sh":
			for line := range strings.Lines(b.text) {
				line = strings.TrimSpace(line)
				ran++
				switch {
				case strings.HasPrefix(line, "go test ./"): // this test is a part of it, or it takes long
				case line == "go run ./cmd/smartdns run" || line == "smartdns run":
					start("run")
				case strings.HasPrefix(line, "smartdns peer run "): // until peer down
					if _, err := w.StartOn(w.context(20*time.Second), w.Gateway.Namespace, exe, strings.Fields(line)[1:]...); err != nil {
						t.Fatalf("README.md:%d: %s: %v", b.line, line, err)
					}
				case line == "go run ./cmd/smartdns lab":
					if out, err := w.Gateway.Exec(w.context(time.Minute), exe, "lab"); err != nil {
						t.Errorf("README.md:%d: %s: %v\n%s", b.line, line, err, out)
					}
				case strings.Contains(line, "go build"):
					line = strings.Replace(line, "-o smartdns", "-o "+filepath.Join(sbin, "built"), 1)
					w.inGateway("cd " + root + " && " + line)
				default:
					line = strings.ReplaceAll(line, " smartdns /usr/sbin", " "+w.exe+" "+sbin)
					if line == "smartdns install" { // this host may have another init, or program of the name
						line += " --init systemd --root " + t.TempDir()
					} else if line == "smartdns install --dry-run" {
						line += " --init procd"
					}
					w.inGateway(line)
				}
			}
		}
	}
	if ran < 15 {
		t.Errorf("%d commands found in README.md: the blocks are not seen", ran)
	}
}

// inGateway runs a shell command on the gateway, which must succeed.
func (w *world) inGateway(line string) {
	w.t.Helper()
	if out, err := w.Gateway.Exec(w.context(2*time.Minute), "bash", "-c", line); err != nil {
		w.t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// Every test that README.md names as a promise's proof exists.
func TestReadmeNamesItsProofs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	err = filepath.WalkDir("../..", func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, "_test.go") {
			b, e := os.ReadFile(p)
			all.Write(b)
			return e
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(readme, -1)
	for _, m := range named {
		if !strings.Contains(all.String(), "func "+string(m[1])+"(") {
			t.Errorf("README.md names %s, and there is none", m[1])
		}
	}
	if len(named) < 15 {
		t.Errorf("README.md names %d tests: the table is not seen", len(named))
	}
}
