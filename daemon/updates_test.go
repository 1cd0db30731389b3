package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/geotest"
	"smartdns/geo/update"
	"smartdns/routing"
)

// fetchedConfig has a list of each use.
const fetchedConfig = `
[tunnel.wg0]
config = "WG"
[side.foreign]
servers = ["tls://1.1.1.1", "9.9.9.10"]
[list.athome]
url = "https://lists.example.net/home.txt"
[list.abroad]
url = "https://lists.example.net/abroad.txt"
[list.nets]
url = "https://lists.example.net/nets.txt"
via = "direct"
[list.countries]
url = "https://203.0.113.80/countries.mmdb"
[decide]
names = [
  { match = "list:abroad", ask = "foreign" },
  { match = "list:athome", ask = "domestic" },
  { match = "*", ask = "auto" },
]
addresses = [
  { match = "list:nets", via = "direct" },
  { match = "*", via = "wg0" },
]
[geo]
sources = ["list:countries", "embedded"]
`

func fetchedParts(t *testing.T) *Parts {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wg0.conf")
	const text = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.9.0.2/24\n" +
		"[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 0.0.0.0/0\nEndpoint = 45.76.1.2:51820\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(strings.NewReader(strings.Replace(fetchedConfig, "WG", path, 1)), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// judge is what the check of a list says of a text.
func judge(t *testing.T, p *Parts, name, text string) (update.Summary, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range p.fetched() {
		if l.Name == name {
			return l.Check(path)
		}
	}
	t.Fatal("no list", name)
	return update.Summary{}, nil
}

// (SECURITY U-06)
func TestPoisonInFetchedLists(t *testing.T) {
	p := fetchedParts(t)
	names, nets := "baidu.com\nqq.com\n", "39.156.0.0/16\n2400:da00::/32\n"
	for _, c := range []struct{ list, line, says string }{ // says: of the line that is left out, or of the file
		{"athome", "com", "top-level domain"},
		{"athome", "top", "top-level domain"},
		{"abroad", "cn", "top-level domain, in a list that is not one of names at home"},
		{"athome", "lists.example.net", "fetched from there"},
		{"athome", "full:lists.example.net", "fetched from there"},
		{"nets", "10.0.0.0/8", "private"},
		{"nets", "172.16.5.0/24", "private"},
		{"nets", "192.168.0.0/15", "private"},
		{"nets", "127.0.0.1", "private"},
		{"nets", "fd00::/8", "private"},
		{"nets", "45.76.1.2", "a WireGuard endpoint"},
		{"nets", "1.1.1.1/32", "an upstream resolver"},
		{"nets", "9.9.9.10", "an upstream resolver"},
		{"nets", "223.5.5.5", "an upstream resolver"},
		{"nets", "203.0.113.80", "a mirror of lists"},

		{"athome", "regexp:.*", "file: takes everything"},
		{"athome", "regexp:^[a-z0-9.-]+$", "file: takes everything"},
		{"athome", "keyword:.", "file: takes everything"},
		{"athome", ".", "file: takes everything"},
		{"athome", "server=/#/1.2.3.4", "file: takes everything"},
		{"nets", "0.0.0.0/0", "file: takes everything"},
		{"nets", "::/0", "file: takes everything"},
		{"nets", "128.0.0.0/1", "file: takes everything"},
		{"nets", "2000::/3", "file: takes everything"},
	} {
		t.Run(c.list+" "+strings.ReplaceAll(c.line, "/", "_"), func(t *testing.T) {
			good := map[string]string{"athome": names, "abroad": names, "nets": nets}[c.list]
			s, err := judge(t, p, c.list, good+c.line+"\n")
			if says, whole := strings.CutPrefix(c.says, "file: "); whole {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%+v, %v; want an error with %q", s, err, says)
				}
				return
			}
			if err != nil || s.Entries != 2 || s.Dropped != 1 || !strings.Contains(s.First, c.says) {
				t.Errorf("%+v, %v; want a line left out with %q", s, err, c.says)
			}
		})
	}
	for list, line := range map[string]string{"athome": "cn", "abroad": "github.com", "nets": "1.1.1.0/24"} {
		good := map[string]string{"athome": names, "abroad": names, "nets": nets}[list]
		if s, err := judge(t, p, list, good+line+"\n"); err != nil || s.Entries != 3 {
			t.Errorf("%s in %s: %+v, %v", line, list, s, err)
		}
	}
	if _, err := judge(t, p, "nets", names); err == nil || !strings.Contains(err.Error(), "names") {
		t.Errorf("names for addresses: %v", err)
	}
}

// What is left out of a file that is fetched is left out of what is in use.
func TestGuardHoldsInUse(t *testing.T) {
	c := fetchedParts(t).Config
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte("39.156.0.0/16\n10.0.0.0/8\n45.76.1.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := compile(c, copies{"nets": {path: path}})
	if err != nil {
		t.Fatal(err)
	}
	if l := p.Sets.Lists; len(l) != 1 || len(l[0].Prefixes) != 1 {
		t.Errorf("%+v", l)
	}
}

// Started with nothing stored, and with what cannot be used (SECURITY U-11).
func TestStartWithoutLists(t *testing.T) {
	p := fetchedParts(t)
	d := Dirs{State: t.TempDir()}
	begun := time.Now()
	for _, stored := range []string{"", "<html>\n"} {
		if stored != "" {
			dir := filepath.Join(listsDir(d), "nets")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "list"), []byte(stored), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := CompileStored(p.Config, d)
		if err != nil {
			t.Fatal(err)
		}
		if v := p.Geo.Lookup(netip.MustParseAddr("39.156.66.10")); v.Region.String() != "home" {
			t.Errorf("the embedded table says %v", v)
		}
		var said string
		for _, l := range p.Lists {
			said += l.Name + ": " + l.Error
		}
		if (stored != "") != strings.Contains(said, "nets: is an HTML page") {
			t.Errorf("with %q the status says %q", stored, said)
		}
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// While a tunnel is down nothing goes over it, nor around it, although its
// other traffic may.
func TestNothingIsFetchedAroundATunnel(t *testing.T) {
	p := fetchedParts(t)
	e := &engine{parts: p, log: slog.New(slog.DiscardHandler)}
	e.outlets = outlets{}
	built, err := e.asking(e.marks).sides(p.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.sides = built
	path := e.updatePath("wg0")
	for _, way := range []outletWay{{}, {by: routing.Direct}} {
		e.outlets.of("wg0").set(way)
		if path.Open() {
			t.Errorf("way %v: it says that it is open", way)
		}
		if c, err := path.Dial(t.Context(), "tcp", "93.184.216.34:443"); !errors.Is(err, errTunnelDown) {
			t.Errorf("way %v: %v %v", way, c, err)
		}
	}
	for _, by := range []routing.Path{"wg0", "wg1"} {
		e.outlets.of("wg0").set(outletWay{by: by})
		if !path.Open() || !e.updatePath(routing.Direct).Open() {
			t.Errorf("they are not open by %s", by)
		}
	}
}

// homeDatabase is a database of 200 prefixes that are in China.
func homeDatabase(t *testing.T) string {
	t.Helper()
	records := map[string]mmdbtype.DataType{}
	for i := range 200 {
		records[netip.PrefixFrom(netip.AddrFrom4([4]byte{39, byte(i), 0, 0}), 16).String()] = mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("CN")}}
	}
	return string(geotest.Database(t, "GeoLite2-Country", records))
}

// A database that is cut or written over where it lies changes nothing until it
// is read again: no part of it is read while it is in use (SECURITY F-31).
func TestDatabaseIsCutWhileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "countries.mmdb")
	if err := os.WriteFile(path, []byte(homeDatabase(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Parse(strings.NewReader("[geo]\nsources = [\"list:countries\"]\n[list.countries]\nfile = \""+path+"\"\n"), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"cut":          func() error { return os.Truncate(path, 0) },
		"written over": func() error { return os.WriteFile(path, bytes.Repeat([]byte{0xff}, 1<<20), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if v := p.Geo.Lookup(netip.AddrFrom4([4]byte{39, byte(i), 1, 1})); v.Region != geo.Home {
				t.Fatalf("%s: 39.%d.1.1 is %v", name, i, v.Region)
			}
		}
		if _, err := Compile(c); err == nil {
			t.Errorf("%s: it is read again", name)
		}
	}
}

// (SECURITY U-12)
func TestDamagedDatabasesAreRefused(t *testing.T) {
	whole := homeDatabase(t)
	p := fetchedParts(t)
	s, err := judge(t, p, "countries", whole)
	if err != nil || s.Addresses != 200<<16 || s.Kind != "mmdb" {
		t.Fatal(s, err)
	}
	path := filepath.Join(t.TempDir(), "list")
	check := p.fetched()[3].Check
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for range 1000 {
		damaged := []byte(whole)
		for range 1 + random.IntN(8) {
			damaged[random.IntN(len(damaged))] ^= 1 << random.IntN(8)
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := check(path); err != nil {
			refused++
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Fatalf("seed %d: reading took %v", seed, took)
		}
	}
	if refused == 0 {
		t.Errorf("seed %d: all were taken", seed)
	}
	for name, damage := range map[string]func(string) string{
		"cut":      func(s string) string { return s[:len(s)*3/4] },
		"no nodes": func(s string) string { return strings.Replace(s, "node_count", "node_caunt", 1) },
		"2 GB of them": func(s string) string {
			return strings.Replace(s, "node_count\xc1", "node_count\xc4\x7f\xff\xff\xff", 1)
		},
		"all loops": func(s string) string {
			return strings.Repeat("\x00", 6*100) + s[6*100:]
		},
	} {
		if _, err := judge(t, p, "countries", damage(whole)); err == nil && damage(whole) != whole {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// A swap is by the running configuration: that on disk may be half written.
func TestSwapsOfOneMomentAreOne(t *testing.T) {
	p := fetchedParts(t)
	e := &engine{opts: Options{Dirs: Dirs{State: t.TempDir()}}, reloads: make(chan reload)}
	e.shown.Store(&view{parts: p})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	swaps := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case r := <-e.reloads:
				n++
				r.done <- nil
			case <-ctx.Done():
				swaps <- n
				return
			}
		}
	}()
	e.data.reloading.Lock()
	errs := make(chan error)
	for range 10 {
		go func() { errs <- e.swapLists(ctx) }()
	}
	for e.data.wanted.Load() < 10 {
		if err := ctx.Err(); err != nil {
			t.Fatal(err)
		}
	}
	e.data.reloading.Unlock()
	for range 10 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	stop()
	if n := <-swaps; n != 1 {
		t.Errorf("%d swaps for 10 lists", n)
	}
}

// The daemon's own way to a mirror in its network, down to the swap.
func TestFetchedListIsUsed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "39.156.0.0/16\n") }))
	defer server.Close()
	c, err := configs.Parse(strings.NewReader(`[list.nets]
url = "`+server.URL+`/nets.txt"
[decide]
addresses = [{ match = "list:nets", via = "direct" }, { match = "*", via = "direct" }]
`), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{opts: Options{Dirs: Dirs{State: t.TempDir()}}, log: slog.New(slog.DiscardHandler), reloads: make(chan reload, 1), parts: p}
	if e.sides, err = e.asking(e.marks).sides(c, nil); err != nil {
		t.Fatal(err)
	}
	e.shown.Store(&view{parts: p})
	e.openUpdates(t.Context())
	e.setUpdates()
	if said := e.data.conditions(p, time.Now()); len(said) != 1 || !strings.Contains(said[0].What, "list nets was never fetched, and is empty") {
		t.Errorf("%+v", said)
	}
	swapped := make(chan *Parts, 1)
	go func() {
		r := <-e.reloads
		swapped <- r.parts
		r.done <- nil
	}()
	all, err := e.data.updates.Update(t.Context(), nil, false)
	if err != nil || all[0].Err != nil || !all[0].Changed {
		t.Fatalf("%+v %v", all, err)
	}
	if l := (<-swapped).everyList(e.data.updates.Status()); l[0].Entries != 1 || l[0].Fetched.From != server.URL+"/nets.txt" {
		t.Errorf("%+v", l[0])
	}
	if said := e.data.conditions(p, time.Now()); len(said) != 0 {
		t.Errorf("%+v", said)
	}
	if said := e.data.conditions(p, time.Now().Add(100*time.Hour)); len(said) != 1 || !strings.Contains(said[0].What, "is old") {
		t.Errorf("%+v", said)
	}
}

// Lists that others publish as they are, fetched: none has a line that takes
// everything.
func TestRealListsPassTheGuard(t *testing.T) {
	p := fetchedParts(t)
	for file, name := range map[string]string{
		"gfwlist/gfwlist.txt": "abroad", "domains/v2fly-geolocation-notcn.txt": "abroad", "domains/v2fly-cn.txt": "athome",
		"domains/bogus-nxdomain.china.conf": "nets", "own/cn4.txt": "nets", "own/cn6.txt": "nets", "cnip/gaoyifan-china6.txt": "nets",
		"own/cn-GeoLite2-Country-schema.mmdb": "countries", "own/cn-flat-country_code-schema.mmdb": "countries",
	} {
		b, err := os.ReadFile(filepath.Join("../../shared/data", file))
		if err != nil {
			t.Skip("SKIPPED: no ../shared/data: " + err.Error())
		}
		s, err := judge(t, p, name, string(b))
		if err != nil || s.Entries == 0 {
			t.Errorf("%s: %v", file, err)
		}
		t.Logf("%s: %d entries, %d left out, the first: %s", file, s.Entries, s.Dropped, s.First)
	}
}
