package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/web/api"
)

// sharedData returns a file of ../shared/data beside the repository, or skips t.
func sharedData(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("../../../shared/data", name)
	if _, err := os.Stat(path); err != nil {
		t.Skip("SKIPPED: no ../shared/data: " + err.Error())
	}
	return path
}

// realList unpacks the dnsmasq list of names in China, and returns it with the
// names.
func realList(t testing.TB) (path string, names map[string]bool) {
	t.Helper()
	packed, err := os.Open(sharedData(t, "domains/accelerated-domains.china.conf.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "china.conf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	names = map[string]bool{}
	for sc := bufio.NewScanner(io.TeeReader(z, f)); sc.Scan(); {
		if name, ok := strings.CutPrefix(sc.Text(), "server=/"); ok {
			name, _, _ = strings.Cut(name, "/")
			names[strings.ToLower(name)] = true
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// Whole top-level domains that are not China's are not what is meant.
	delete(names, "top")
	delete(names, "wang")
	return path, names
}

// below reports whether name, or a name above it, is one of names.
func below(name string, names map[string]bool) bool {
	for name = strings.ToLower(strings.TrimSuffix(name, ".")); ; {
		if names[name] {
			return true
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		name = parent
	}
}

// withList makes a list the one of names at home.
func withList(config, path string) string {
	config = strings.Replace(config, "names = [\n", "names = [\n  { match = \"list:cn-domains\", ask = \"domestic\" },\n", 1)
	return config + "\n[list.cn-domains]\nfile = \"" + path + "\"\n"
}

// The list of 110,769 names loads; the 10,000 most asked names resolve and are
// classified as their list says; addresses whose country the free sources
// dispute are where our table puts them.
func TestRealInput(t *testing.T) {
	path, names := realList(t)
	w := newWorld(t)
	w.config = withList(w.config, path)
	w.Zone.AnswerAll(func(name string) bool { return below(name, names) })
	w.start()
	w.waitUp()
	l := w.status().Lists[0]
	if l.Name != "cn-domains" || l.Entries+l.Dropped != 110_769 || l.Dropped != 2 || l.Entries != len(names) {
		t.Errorf("the list: %+v; it has %d names besides whole top-level domains", l, len(names))
	}
	t.Logf("%d names, %d lines passed over, the first: %s", l.Entries, l.Dropped, l.FirstDropped)
	text, err := os.ReadFile(sharedData(t, "toplists/opendns-top-domains.txt"))
	if err != nil {
		t.Fatal(err)
	}
	top := strings.Fields(string(text))
	home, abroad := w.resolveAll(top, names)
	t.Logf("%d names: %d home, %d abroad", len(top), home, abroad)
	if home+abroad != len(top) || home < 100 || abroad < 5000 {
		t.Errorf("%d home and %d abroad of %d names", home, abroad, len(top))
	}
	byPath := map[string]int{}
	for _, m := range w.marks().Marks {
		byPath[m.Path]++
		if want := map[bool]string{true: "direct", false: "wg0"}[lab.IsHome(m.Addr)]; m.Path != want {
			t.Errorf("%s is marked for %s", m.Addr, m.Path)
		}
	}
	t.Logf("addresses marked, by path: %v", byPath)
	for _, c := range w.status().Counters {
		if c.Value > 0 {
			t.Logf("%-8s %6d %s", c.Group, c.Value, c.Name)
		}
	}
	w.noLeaks()
	w.ipCases()
}

// resolveAll resolves names from the client, and counts where they are.
func (w *world) resolveAll(all []string, inList map[string]bool) (home, abroad int) {
	w.t.Helper()
	var next, homes, abroads atomic.Int64
	var wrong sync.Map
	var workers sync.WaitGroup
	for range 40 {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
				m, err := w.Client.Ask(ctx, lab.Question{Server: gatewayDNS, Name: all[i]})
				cancel()
				if err != nil {
					wrong.Store(all[i], err)
					continue
				}
				switch a := lab.Addresses(m); {
				case len(a) == 0:
					wrong.Store(all[i], fmt.Errorf("no address: rcode %d", m.Rcode))
				case lab.IsHome(a[0]) != below(all[i], inList):
					wrong.Store(all[i], fmt.Errorf("it resolves to %s", a[0]))
				case lab.IsHome(a[0]):
					homes.Add(1)
				default:
					abroads.Add(1)
				}
			}
		})
	}
	workers.Wait()
	n := 0
	wrong.Range(func(name, err any) bool {
		if n++; n <= 20 {
			w.t.Errorf("%s: %v", name, err)
		}
		return true
	})
	return int(homes.Load()), int(abroads.Load())
}

// ipCases checks where smartdns route puts the addresses that sources dispute.
func (w *world) ipCases() {
	w.t.Helper()
	f, err := os.Open(sharedData(w.t, "own/ip-cases.csv"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment = '#'
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		w.t.Fatal(err)
	}
	counts := map[string]int{}
	for _, row := range rows[1:] {
		a, err := netip.ParseAddr(row[0])
		if err != nil {
			w.t.Errorf("%s: %v", row[0], err)
			continue
		}
		out, err := w.cli("route", "--json", a.String())
		var got api.Route
		if err := errors.Join(err, json.Unmarshal([]byte(out), &got)); err != nil || len(got.Answers) != 1 {
			w.t.Errorf("route %s: %v\n%s", a, err, out)
			continue
		}
		answer := got.Answers[0]
		counts[answer.Region+" via "+answer.Path]++
		if (answer.Region == "home") != (row[1] == "1") {
			w.t.Errorf("%s (%s): it is %s, %s", a, strings.Join(row[8:], ","), answer.Region, answer.Because)
		}
		if answer.Region == "home" && answer.Path != "direct" || answer.Region == "abroad" && answer.Path != "wg0" {
			w.t.Errorf("%s is %s, and leaves by %s", a, answer.Region, answer.Path)
		}
	}
	w.t.Logf("%d disputed addresses: %v", len(rows)-1, counts)
}

// BenchmarkStart measures how long a start takes, with the list of 110,769 names:
// until an answer that asks nobody, until one that a server at home gave, and
// until all is up; how much of the processor that took until then; and what the
// daemon occupies at its first answer. With the tunnel, its table is in place
// before any of them.
func BenchmarkStart(b *testing.B) {
	path, _ := realList(b)
	w := newWorld(b)
	config := withList(w.config, path)
	config = strings.Replace(config, "names = [\n", "names = [\n  { match = \"full:here.start.test\", answer = [\"192.168.8.77\"] },\n", 1)
	b.Run("tunnel", func(b *testing.B) { w.benchmarkStart(b, config) })
	b.Run("no tunnel", func(b *testing.B) { w.benchmarkStart(b, config+"\n[routing]\nmode = \"off\"\n") })
}

func (w *world) benchmarkStart(b *testing.B, config string) {
	if err := w.Gateway.WriteConfig(config); err != nil {
		b.Fatal(err)
	}
	sum := map[string]float64{}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		begun := time.Now()
		p, err := w.Gateway.Launch(w.exe, "run", "-c", w.Gateway.ConfigFile(), "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())
		if err != nil {
			b.Fatal(err)
		}
		answered := func(name string) float64 {
			for {
				ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
				m, err := w.Gateway.Ask(ctx, lab.Question{Server: netip.MustParseAddr("127.0.0.1"), Name: name})
				cancel()
				if err == nil && len(lab.Addresses(m)) > 0 {
					return float64(time.Since(begun).Microseconds()) / 1000
				}
				select {
				case <-tick.C:
				case <-p.Done():
					b.Fatal(p.Log())
				}
			}
		}
		sum["ms/first-own"] += answered("here.start.test")
		sum["ms/first-answer"] += answered("www.baidu.com")
		sum["MiB-RSS"] += resident(b, p.Pid())
		if err := p.Ready(w.context(10 * time.Second)); err != nil {
			b.Fatal(err)
		}
		sum["ms/ready"] += float64(time.Since(begun).Microseconds()) / 1000
		sum["ms/CPU"] += onCPU(b, p.Pid())
		if err := p.Stop(w.context(10 * time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	for unit, x := range sum {
		b.ReportMetric(x/float64(b.N), unit)
	}
}

// onCPU is how long the threads of a process have run, in ms.
func onCPU(t testing.TB, pid int) float64 {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(all) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	sum := 0.0
	for _, file := range all {
		var ns float64
		if b, err := os.ReadFile(file); err == nil { // else it has ended
			_, _ = fmt.Sscan(string(b), &ns)
		}
		sum += ns / 1e6
	}
	return sum
}

// resident is a process's resident memory, in MiB.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no VmRSS of %d", pid)
	return 0
}

// Databases of both schemas load; of broken ones check says so in one
// sentence.
func TestRealDatabases(t *testing.T) {
	for file, want := range map[string]string{
		"own/cn-GeoLite2-Country-schema.mmdb":             "",
		"own/cn-flat-country_code-schema.mmdb":            "",
		"mmdb/GeoLite2-Country-Test.mmdb":                 "",
		"mmdb/GeoIP2-Country-Test.mmdb":                   "",
		"mmdb/GeoIP2-City-Test-Invalid-Node-Count.mmdb":   "reading MaxMind database",
		"mmdb/MaxMind-DB-test-broken-pointers-24.mmdb":    "reading MaxMind database",
		"mmdb/MaxMind-DB-test-broken-search-tree-24.mmdb": "reading MaxMind database",
		"mmdb/GeoLite2-ASN-Test.mmdb":                     "reading MaxMind database",
		"domains/dlc.dat":                                 "[geo] sources takes prefixes or a MaxMind database",
		"domains/v2fly-cn.txt":                            "[geo] sources takes prefixes or a MaxMind database",
	} {
		path, err := filepath.Abs(sharedData(t, file))
		if err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(t.TempDir(), "smartdns.toml")
		if err := os.WriteFile(config, []byte("[geo]\nsources = [\"list:db\", \"embedded\"]\n[list.db]\nfile = \""+path+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, out, _ := command(t, "check", "--json", config)
		var c api.Checked
		decode(t, out, &c)
		t.Logf("%s: %v", file, c.Errors)
		if want == "" && len(c.Errors) != 0 || want != "" && (len(c.Errors) != 1 || !strings.Contains(c.Errors[0], want) || !strings.Contains(c.Errors[0], "[list.db] "+path+": ")) {
			t.Errorf("%s: %q, want %q", file, c.Errors, want)
		}
	}
}
