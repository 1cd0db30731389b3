package units_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"smartdns/configs/units"
)

// variants are what a configuration can ask of a unit.
var variants = map[string]units.Boot{
	"alone":     {},
	"tunnels":   {Config: "/etc/smartdns/other.toml", Tunnels: []string{"wg0", "wg.office"}, Secrets: []string{"/etc/wireguard/wg0.conf", "/etc/wireguard/wg.office.conf"}},
	"as root":   {Tunnels: []string{"wg0"}, Secrets: []string{"/etc/wireguard/wg0.conf"}, Root: "[listen] system = true"},
	"strict":    {Tunnels: []string{"wg0"}, Secrets: []string{"/etc/wireguard/wg0.conf"}, Strict: true},
	"elsewhere": {Program: "/usr/local/sbin/smartdns"},
}

// needs skips where a program that the check asks is not there.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("SKIPPED: " + err.Error())
	}
}

// written installs for an init below a new directory.
func written(t *testing.T, i units.Init, b units.Boot) string {
	t.Helper()
	root := t.TempDir()
	if _, err := units.Install(root, units.Files(i, b)); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSystemdTakesTheUnits(t *testing.T) {
	needs(t, "systemd-analyze")
	for name, b := range variants {
		t.Run(name, func(t *testing.T) {
			b.Program = "/bin/true" // one that is there
			root := written(t, units.Systemd, b)
			if _, err := units.Add(root, units.PeerFiles(b)); err != nil {
				t.Fatal(err)
			}
			dir := root + "/etc/systemd/system"
			found, err := filepath.Glob(dir + "/*.service")
			if err != nil || len(found) == 0 {
				t.Fatal(found, err)
			}
			out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, found...)...).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%v\n%s", err, out)
			}
			for _, unit := range found {
				most := "20" // tenths
				if b.Root != "" || strings.Contains(unit, "-peer@") {
					most = "27" // root may do more
				}
				out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+most, unit).CombinedOutput()
				if err != nil {
					t.Errorf("%v: more than %s tenths\n%s", err, most, out)
				}
			}
		})
	}
}

func TestUnitRunsTheProgram(t *testing.T) {
	for name, want := range map[string]string{
		"alone":     "\nExecStart=/usr/sbin/smartdns run\nExecReload=/usr/sbin/smartdns reload\n",
		"tunnels":   "\nExecStart=/usr/sbin/smartdns run --config /etc/smartdns/other.toml\n",
		"elsewhere": "\nExecStart=/usr/local/sbin/smartdns run\nExecReload=/usr/local/sbin/smartdns reload\n",
	} {
		files := units.Files(units.Systemd, variants[name])
		if !strings.Contains(files[0].Text, want) {
			t.Errorf("%s: %s", name, files[0].Text)
		}
	}
	root := written(t, units.Systemd, variants["tunnels"])
	for file, want := range map[string]string{
		"/etc/systemd/system/smartdns.service.d/10-configuration.conf": "\nLoadCredential=etc-wireguard-wg.office.conf:/etc/wireguard/wg.office.conf\n",
		"/etc/sysctl.d/60-smartdns.conf":                               "\n-net.ipv4.conf.wg/office.rp_filter = 2\n",
	} {
		text, err := os.ReadFile(root + file)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
}

func TestShellsTakeTheScripts(t *testing.T) {
	needs(t, "shellcheck")
	needs(t, "busybox")
	for i, how := range map[units.Init][]string{
		// Variables are for who sources them, or from there.
		units.OpenRC: {"-s", "sh", "-e", "SC2034,SC2154"},
		units.Procd:  {"-s", "dash", "-e", "SC2034"},
	} {
		for _, f := range units.Files(i, units.Boot{}) {
			if !strings.HasPrefix(f.Text, "#!") {
				continue
			}
			file := written(t, i, units.Boot{}) + f.Path
			if out, err := exec.Command("shellcheck", append(how, file)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", i, err, out)
			}
			if out, err := exec.Command("busybox", "ash", "-n", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", i, err, out)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v, %v", file, info, err)
			}
		}
	}
}

func TestDetectsTheInit(t *testing.T) {
	for _, tt := range []struct {
		files []string
		want  units.Init
	}{
		{[]string{"run/systemd/system/x", "sbin/openrc-run"}, units.Systemd},
		{[]string{"sbin/procd", "sbin/init"}, units.Procd},
		{[]string{"sbin/openrc-run", "lib/systemd/systemd"}, units.OpenRC},
		{[]string{"usr/lib/systemd/systemd"}, units.Systemd}, // not booted: an image
		{[]string{"sbin/runit"}, ""},
	} {
		host := fstest.MapFS{}
		for _, f := range tt.files {
			host[f] = &fstest.MapFile{}
		}
		got, ok := units.Detect(host)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%v: %q, %v", tt.files, got, ok)
		}
	}
}
