package daemon

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
)

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	// As an editor does: the new file takes the old one's place.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func parsed(t *testing.T, text string) *configs.Config {
	t.Helper()
	c, err := configs.Parse(strings.NewReader(text), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// recordsEngine is an engine that only answers.
func recordsEngine(t *testing.T, c *configs.Config) *engine {
	t.Helper()
	parts, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{log: slog.New(slog.DiscardHandler), parts: parts, kernelSide: kernelSide{failures: map[string]failure{}}}
	e.geo = geo.NewHandle(parts.Geo)
	e.policy = parts.policy(nil, e.geo)
	e.sealed = cache.NewSealed(0, new(cache.Generation))
	e.resolver = resolver.New(resolver.Config{Policy: e.policy, Cache: cache.New(0), Learned: resolver.NewLearned(10), Sealed: e.sealed})
	return e
}

func answers(t *testing.T, e *engine, name string) string {
	t.Helper()
	d := e.resolver.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(name), 1, netip.Addr{}))
	var all []string
	for _, a := range d.Addresses {
		all = append(all, a.Addr.String())
	}
	return strings.Join(append(all, d.Steps[0].Rule.Pos), " ")
}

// A hosts file that changes on disk is what we answer by from then on, sealed
// answers included; one that cannot be read leaves the records as they were,
// and says so until it is mended.
func TestRecordsFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	hosts := writeFile(t, dir, "hosts", "192.168.8.2 nas.home.arpa\nnonsense\n")
	zone := writeFile(t, dir, "home.zone", "tv.home.arpa A 192.168.8.5\n")
	e := recordsEngine(t, parsed(t, `[records]
lines = ["x.home.arpa A 192.168.8.9"]
hosts = ["`+hosts+`"]
zones = ["`+zone+`"]
`))
	for name, want := range map[string]string{
		"nas.home.arpa.": "192.168.8.2 hosts:1", "tv.home.arpa.": "192.168.8.5 home.zone:1", "x.home.arpa.": "192.168.8.9 smartdns.toml:2",
	} {
		if got := answers(t, e, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if e.followRecords(t.Context()) {
		t.Error("nothing has changed")
	}
	if l := e.parts.allLists(); len(l) != 3 || l[2].Dropped != 1 || !strings.HasPrefix(l[2].FirstDropped, "hosts:2: ") {
		t.Errorf("lists: %+v", l)
	}

	before := e.sealed.Generation().Now()
	writeFile(t, dir, "hosts", "\n192.168.8.3 nas.home.arpa\n")
	if !e.followRecords(t.Context()) || answers(t, e, "nas.home.arpa.") != "192.168.8.3 hosts:2" {
		t.Errorf("after the file changed: %s", answers(t, e, "nas.home.arpa."))
	}
	if e.sealed.Generation().Now() == before {
		t.Error("sealed answers go on by the old file")
	}

	writeFile(t, dir, "home.zone", "tv.home.arpa A 192.168.8.5\ntv.home.arpa CNAME x.home.arpa\n")
	writeFile(t, dir, "hosts", "192.168.8.4 nas.home.arpa\n")
	e.followRecords(t.Context())
	f := e.failures["records"]
	if f.severity != severityWarning || !strings.Contains(f.text, "stay as they were") || !strings.Contains(f.text, "home.zone:2: a name with a CNAME") {
		t.Errorf("failure %+v", f)
	}
	if got := answers(t, e, "nas.home.arpa."); got != "192.168.8.3 hosts:2" {
		t.Errorf("with a broken zone file: %s", got)
	}
	if e.followRecords(t.Context()) {
		t.Error("the broken file is read again though nobody touched it")
	}
	os.Remove(zone)
	e.followRecords(t.Context())
	if !strings.Contains(e.failures["records"].text, "no such file") {
		t.Errorf("failure %+v", e.failures["records"])
	}
	writeFile(t, dir, "home.zone", "tv.home.arpa A 192.168.8.6\n")
	e.followRecords(t.Context())
	if f, failed := e.failures["records"]; failed || answers(t, e, "tv.home.arpa.") != "192.168.8.6 home.zone:1" || answers(t, e, "nas.home.arpa.") != "192.168.8.4 hosts:1" {
		t.Errorf("after it was mended: %v, %s, %s", f, answers(t, e, "tv.home.arpa."), answers(t, e, "nas.home.arpa."))
	}
}

func TestRecordsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	bad := writeFile(t, dir, "bad.zone", "a.example A 1.2.3.4\nb.example A nothing\n")
	_, err := Compile(parsed(t, `[records]
lines = ["nas.home.arpa A 192.168.8.2",
  "nas.home.arpa AA 192.168.8.2"]
zones = ["`+bad+`", "`+dir+`/none.zone"]
hosts = ["`+dir+`"]
`))
	if err == nil {
		t.Fatal("it compiles")
	}
	for _, want := range []string{
		"smartdns.toml:3: [records] lines: ",
		"smartdns.toml:4: [records] zones " + bad + ": bad.zone:2: ",
		"smartdns.toml:4: [records] zones " + dir + "/none.zone: no such file or directory",
		"smartdns.toml:5: [records] hosts " + dir + ": it is not a regular file",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

// What the file says reaches the resolver's policy.
func TestShapesAreCompiled(t *testing.T) {
	e := recordsEngine(t, parsed(t, `[side.office]
servers = ["192.168.50.53"]
private = true
[decide]
names = [
  { match = "reverse:192.168.48.0/23", ask = "office", aaaa = "keep", https = "strip" },
  { match = "*", ask = "auto" },
]
[dns64]
prefix = "64:ff9b::/96"
exclude = ["10.0.0.0/8"]
nat64 = "path"
`))
	p := e.policy
	for _, name := range []dnsname.FQDN{"1.48.168.192.in-addr.arpa.", "255.49.168.192.in-addr.arpa."} {
		rule, _ := p.Names.Match(name)
		if rule.Side != "office" || rule.Shape.AAAA != "keep" || rule.Shape.HTTPS != "strip" {
			t.Errorf("%s: %+v", name, rule)
		}
	}
	if rule, _ := p.Names.Match("1.50.168.192.in-addr.arpa."); rule.Shape.AAAA != "" || rule.Side != "" {
		t.Errorf("another network: %+v", rule)
	}
	d := p.Local.DNS64
	if !p.Sides["office"].Private || p.Sides["foreign"].Private || d.Prefix.String() != "64:ff9b::/96" || !d.OnPath || !d.Exclude.Contains(netip.MustParseAddr("10.1.2.3")) {
		t.Errorf("%+v, %+v", p.Sides["office"], d)
	}
}
