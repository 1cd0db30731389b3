package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/web/api"
)

// What a unit needs is read from the configuration of the system it is for.
func TestInstallGoesByTheConfiguration(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "etc/smartdns/smartdns.toml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("[tunnel.wg0]\nconfig = \"/etc/wireguard/wg0.conf\"\n")
	dropIn := filepath.Join(root, "etc/systemd/system/smartdns.service.d/10-configuration.conf")
	code, out, errs := command(t, "install", "--init", "systemd", "--root", root)
	text, _ := os.ReadFile(dropIn)
	if code != exitYes || errs != "" || !strings.Contains(out, "smartdns.service") || !strings.Contains(string(text), "LoadCredential=etc-wireguard-wg0.conf:/etc/wireguard/wg0.conf\n") {
		t.Errorf("exit %d\n%s%s\n%s", code, out, errs, text)
	}
	write("[listen]\nsystem = true\n\n[tunnel.wg0]\nconfig = \"/etc/wireguard/wg0.conf\"\n")
	_, out, _ = command(t, "install", "--json", "--init", "systemd", "--root", root)
	var v api.Installed
	decode(t, out, &v)
	text, _ = os.ReadFile(dropIn)
	if len(v.Files) != 5 || !strings.Contains(string(text), "User=root\n") || strings.Contains(string(text), "LoadCredential") {
		t.Errorf("%+v\n%s", v, text)
	}
	code, out, _ = command(t, "uninstall", "--root", root)
	if left, _ := filepath.Glob(root + "/etc/*/smartdns*"); code != exitYes || len(left) != 1 || strings.Count(out, "removed") != 5 {
		t.Errorf("exit %d, left %v\n%s", code, left, out)
	}
	write("[tunnel.wg0]\nconfig = \"/etc/my vpn.conf\"\n")
	if code, _, errs := command(t, "install", "--init", "systemd", "--root", root); code != exitNo || !strings.Contains(errs, "my vpn.conf") {
		t.Errorf("a path with a blank: exit %d\n%s", code, errs)
	}
}

// The unit of a far end is named by its interface, and needs no configuration.
func TestInstallOfAFarEnd(t *testing.T) {
	root := t.TempDir()
	unit := filepath.Join(root, "etc/systemd/system/smartdns-peer@.service")
	code, out, errs := command(t, "install", "--init", "systemd", "--root", root, "--peer", "exit")
	if text, err := os.ReadFile(unit); code != exitYes || errs != "" || err != nil || !strings.Contains(string(text), "peer run $FLAGS %i") || !strings.Contains(out, "wrote") || !strings.Contains(out, "exit.conf is not there") {
		t.Errorf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if all, _ := filepath.Glob(filepath.Dir(unit) + "/*"); len(all) != 1 {
		t.Errorf("there are %v", all)
	}
	for _, args := range [][]string{{"--peer", "a/b", "--init", "systemd"}, {"--peer", "", "--init", "systemd"}, {"--peer", "exit", "--init", "openrc"}} {
		if code, _, errs := command(t, append([]string{"install", "--root", root}, args...)...); code != exitUsage || !strings.Contains(errs, "--peer") {
			t.Errorf("%v: exit %d\n%s", args, code, errs)
		}
	}
	if code, out, _ := command(t, "uninstall", "--peer", "--root", root); code != exitYes || strings.Count(out, "removed") != 1 {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// The procd script prints the configuration of UCI, or logs what is wrong.
func TestInitReadsUCI(t *testing.T) {
	file := filepath.Join(t.TempDir(), "smartdns")
	for text, want := range map[string]string{
		"config listen\n\tlist lan 'lan0'\n":       "[listen]\nlan = [\"lan0\"]\n",
		"config listen\n\tlist lna 'lan0'\n":       ":2: [listen] lna",
		"config listen\n\tlist lan 'lan0\n":        ":2: a quote is not closed",
		"config tunnel 'wg0'\n\toption device x\n": ":2: [tunnel.wg0] device",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "init", "--from", "uci:"+file, "--output", "-")
		if good := strings.HasPrefix(want, "["); (code == exitYes) != good || good != (errs == "") || !strings.Contains(out+errs, want) {
			t.Errorf("%q: exit %d\n%s%s", text, code, out, errs)
		}
	}
	if code, _, errs := command(t, "init", "--from", "uci:"+file); code != exitUsage || !strings.Contains(errs, "--output -") {
		t.Errorf("no output: exit %d\n%s", code, errs)
	}
}
