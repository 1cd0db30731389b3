package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"smartdns/web/api"
)

// command runs the program in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

// decode reads JSON into v, which must have a place for all of it.
func decode(t testing.TB, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Errorf("reading %T: %v\n%s", v, err, text)
	}
	var s struct{ Schema int }
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.Schema != api.Schema {
		t.Errorf("%T has schema %d, %v; want %d", v, s.Schema, err, api.Schema)
	}
	if strings.Contains(text, ": null") && !strings.Contains(text, `"handshake": null`) {
		t.Errorf("%T: an empty list is [], not null:\n%s", v, text)
	}
}

// A command line that nobody understands is exit code 2 with one sentence and
// where to read on.
func TestUsageIsTwo(t *testing.T) {
	for _, args := range []string{
		"bogus", "--bogus", "statsu", "query", "query a b c", "query --bogus", "route", "route a b", "status x", "marks x", "marks --bogus",
		"marks forget", "marks forget a b",
		"verdicts x", "cache x", "cache list a b", "cache list --limit 0", "cache flush", "cache flush a b", "cache flush a --all", "cache flush a --suffix b", "cache flush --all --side foreign", "verdicts list a b", "verdicts pin a", "verdicts pin a home b", "verdicts forget", "verdicts forget a b",
		"verdicts forget a --all", "verdicts forget --all --suffix a", "verdicts forget --suffix=", "run x", "check a b", "config x", "plan x", "diff x", "cleanup x", "up a b", "up --bogus", "down x", "save a b", "strip a b", "reload x", "version x",
		"doctor x", "install x", "install --init upstart", "uninstall x", "peer up", "peer up a b", "peer run", "peer down a b", "peer add", "peer add a b c", "peer add a --address x", "peer up a --snat x", "peer remove", "peer list a b", "peer qr", "peer x", "genkey x", "pubkey x", "genpsk x", "lab x", "help bogus", "help query x", "completion", "completion bogus", "-c", "status --json=maybe",
	} {
		code, out, errs := command(t, strings.Fields(args)...)
		if code != exitUsage || out != "" || strings.Count(errs, "\n") != 2 || !strings.HasPrefix(errs, "smartdns: ") || !strings.Contains(errs, "\ntry: smartdns") {
			t.Errorf("smartdns %s: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestUsageSaysHowToWriteIt(t *testing.T) {
	for args, want := range map[string]string{
		"query":           "write smartdns query NAME [TYPE]",
		"verdicts pin a":  "write smartdns verdicts pin NAME home|abroad",
		"marks forget":    "write smartdns marks forget ADDR",
		"check one other": "write smartdns check [FILE]",
	} {
		if _, _, errs := command(t, strings.Fields(args)...); !strings.Contains(errs, "smartdns: "+want+"\n") {
			t.Errorf("smartdns %s: %s", args, errs)
		}
	}
}

// Without the daemon each command that needs it says so in one sentence.
func TestNoDaemonIsOne(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"query www.example.com", "route 192.0.2.1", "status", "status -q", "status --json", "marks", "marks forget 192.0.2.1", "verdicts",
		"verdicts pin a.org home", "verdicts forget a.org", "verdicts forget --all", "cache", "cache list example.org", "cache flush www.example.org", "cache flush --all", "reload"} {
		code, out, errs := command(t, append(strings.Fields(args), "--run-dir", dir)...)
		if code != exitNo || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, api.ErrNoDaemon.Error()) || !strings.Contains(errs, "smartdns run") {
			t.Errorf("smartdns %s: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

// Every command has a help that fits a terminal.
func TestHelpFits(t *testing.T) {
	code, out, _ := command(t, []string{}...) // nil would be the arguments of this process
	if code != exitYes || !strings.Contains(out, helpTitle) {
		t.Errorf("smartdns alone: exit %d\n%s", code, out)
	}
	readable(t, out)
	root := newRoot(os.Stdout, os.Stderr)
	if n := len(root.Commands()); n < 14 {
		t.Errorf("%d commands", n)
	}
	var each func(*cobra.Command)
	each = func(c *cobra.Command) {
		if c.Short == "" || len(c.Short) > 66 {
			t.Errorf("%s: what it does in one line of at most 66 columns: %q", c.CommandPath(), c.Short)
		}
		path := strings.Fields(c.CommandPath())[1:]
		for _, args := range [][]string{append(path, "--help"), append([]string{"help"}, path...)} {
			code, out, errs := command(t, args...)
			if code != exitYes || errs != "" || !strings.Contains(out, "Usage:") {
				t.Errorf("smartdns %v: exit %d\n%s%s", args, code, out, errs)
			}
			readable(t, out)
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(root)
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, errs := command(t, "completion", shell)
		if code != exitYes || !strings.Contains(out, "smartdns") || errs != "" {
			t.Errorf("%s: exit %d, %d bytes\n%s", shell, code, len(out), errs)
		}
	}
	if _, out, _ := command(t, "__complete", "st"); !strings.Contains(out, "status\t") {
		t.Errorf("completing st: %s", out)
	}
}

func TestVersionAndConfigWithoutAFile(t *testing.T) {
	code, out, _ := command(t, "version")
	if code != exitYes || !strings.HasPrefix(out, "smartdns ") || strings.Count(out, "\n") != 1 {
		t.Errorf("version: exit %d, %q", code, out)
	}
	_, out, _ = command(t, "version", "--json")
	var v api.Version
	if decode(t, out, &v); v.Version == "" {
		t.Error("no version")
	}
	code, out, _ = command(t, "config")
	if code != exitYes || !strings.Contains(out, "[listen]") {
		t.Errorf("config: exit %d\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		if columns(line) > 81 {
			t.Errorf("the reference is wider than a terminal: %s", line)
		}
	}
	file := filepath.Join(t.TempDir(), "smartdns.toml")
	if err := os.WriteFile(file, []byte("[listen]\nredirect = false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, out, _ = command(t, "config", "--effective", "-c", file)
	if !strings.Contains(strings.Join(strings.Fields(out), " "), " redirect = false ") || !strings.Contains(out, "[side.domestic]") {
		t.Errorf("the effective configuration:\n%s", out)
	}
	_, out, _ = command(t, "config", "--json", "-c", file)
	var c api.Config
	decode(t, out, &c)
	if listen, _ := c.Config["listen"].(map[string]any); listen["redirect"] != false {
		t.Errorf("the effective configuration as JSON:\n%s", out)
	}
}

// check says where each mistake is, one line each, and what would be right.
func TestCheckNamesFileLineAndFix(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "smartdns.toml")
	if err := os.WriteFile(file, []byte("[listen]\ndsn = [\"127.0.0.1\"]\n\n[side.foreign]\nvia = \"wg1\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, errs := command(t, "check", file)
	if code != exitNo || out != "" || !strings.Contains(errs, "smartdns.toml:2: [listen] dsn: ") || !strings.Contains(errs, "smartdns.toml:5: [side.foreign] via: ") || strings.Count(errs, "\n") != 2 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = command(t, "check", "--json", file)
	var c api.Checked
	if decode(t, out, &c); code != exitNo || c.OK || len(c.Errors) != 2 {
		t.Errorf("exit %d, %+v", code, c)
	}
	code, out, errs = command(t, "check", "-c", filepath.Join(dir, "none.toml"))
	if code != exitNo || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "none.toml") {
		t.Errorf("a missing file: exit %d\n%s%s", code, out, errs)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, "check", file)
	if code != exitYes || errs != "" || !strings.HasSuffix(out, "smartdns.toml: fine\n") {
		t.Errorf("an empty file: exit %d\n%s%s", code, out, errs)
	}
	readable(t, out)
}
