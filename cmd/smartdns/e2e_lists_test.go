package main

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"smartdns/lab"
	"smartdns/web/api"
)

// mirrorFiles is what a mirror has: the real files where they are, else small
// ones of the same kinds.
func mirrorFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{
		"china.conf":   "server=/baidu.com/114.114.114.114\nserver=/weibo.com/114.114.114.114\nserver=/top/114.114.114.114\n",
		"foreign.txt":  "domain:google.com\nfull:www.example.com\n",
		"china4.txt":   "39.156.0.0/16\n1.0.1.0/24\n",
		"apnic.txt":    "2|apnic|20260213|2|19830613|20260212|+1000\napnic|*|ipv4|*|1|summary\napnic|CN|ipv4|39.156.0.0|65536|20110412|allocated\n",
		"country.mmdb": string(database(t)),
	}
	for name, real := range map[string]string{
		"china.conf": "domains/accelerated-domains.china.conf.gz", "foreign.txt": "domains/v2fly-geolocation-notcn.txt",
		"china4.txt": "cnip/gaoyifan-china4.txt", "apnic.txt": "apnic/delegated-apnic-20260213.txt.gz", "country.mmdb": "own/cn-GeoLite2-Country-schema.mmdb",
	} {
		b, err := os.ReadFile(filepath.Join("../../../shared/data", real))
		if err != nil {
			t.Logf("SKIPPED: the real %s: %v", name, err)
			continue
		}
		files[name] = string(b)
	}
	return files
}

// mirror is www.example.com, port 8444, abroad. Nobody is there before it opens.
type listMirror struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]string
	from  map[string]bool // who asked
}

func (w *world) openMirror(files map[string]string) *listMirror {
	w.t.Helper()
	m := &listMirror{files: files, from: map[string]bool{}}
	m.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		m.from[host] = true
		text, ok := m.files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(rw, r)
			return
		}
		_, _ = rw.Write([]byte(text))
	}))
	m.Listener.Close()
	err := w.Outside.Do(func() (err error) {
		m.Listener, err = net.Listen("tcp", netip.AddrPortFrom(lab.AbroadWebV4, 8444).String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m.StartTLS()
	w.t.Cleanup(m.Close)
	return m
}

func (m *listMirror) serve(name, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = text
}

// trust makes the gateway's programs trust what httptest shows.
func (w *world) trustMirror() {
	w.t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	f, err := os.OpenFile(w.Gateway.AuthorityFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if err := pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) listed() map[string]api.List {
	w.t.Helper()
	out, err := w.cli("lists", "--json")
	if err != nil {
		w.t.Fatal(err)
	}
	var l api.Lists
	decode(w.t, out, &l)
	all := map[string]api.List{}
	for _, x := range l.Lists {
		all[x.Name] = x
	}
	return all
}

// Everything from scratch, through the tunnel; and a start with nothing and
// without a mirror, and one with what is stored (SECURITY U-11).
func TestListsAreFetchedThroughTheTunnel(t *testing.T) {
	w := newWorld(t)
	w.trustMirror()
	const at = "https://www.example.com:8444/"
	w.config = strings.Replace(w.config, "names = [\n", `names = [
  { match = "list:foreign",    ask = "foreign" },
  { match = "list:cn-domains", ask = "domestic" },
`, 1) + `
[list.foreign]
url = ["https://www.example.com:8444/not-there", "` + at + `foreign.txt"]
[list.cn-domains]
url = "` + at + `china.conf"
[list.china4]
url = "` + at + `china4.txt"
region = "CN"
[list.apnic]
url = "` + at + `apnic.txt"
[list.country]
url = "` + at + `country.mmdb"
[geo]
sources = ["list:country", "list:china4", "list:apnic", "embedded"]
`
	w.start()
	w.waitUp()
	if said := conditionsText(w.status()); !strings.Contains(said, "list foreign was never fetched") || !strings.Contains(said, "the short one of the program") {
		t.Errorf("nobody says that the lists are not there yet:\n%s", said)
	}
	m := w.openMirror(mirrorFiles(t))
	out, err := w.cli("lists", "update")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("lists update:\n%s", out)
	fetched := w.listed()
	for name, least := range map[string]int{"foreign": 2, "cn-domains": 2, "china4": 2, "apnic": 1, "country": 1} {
		l := fetched[name]
		if l.Entries < least || l.Fetched == nil || l.Fetched.From == "" || l.Fetched.Failure != nil {
			t.Errorf("%s: %+v %+v", name, l, l.Fetched)
		}
	}
	for from := range m.from {
		if from != lab.TunnelV4.String() {
			t.Errorf("%s asked for a list", from)
		}
	}
	if out, err := w.cli("query", "tieba.baidu.com"); !strings.Contains(out, "cn-domains:") {
		t.Errorf("the list does not decide: %v\n%s", err, out)
	}
	if said := conditionsText(w.status()); strings.Contains(said, "list ") {
		t.Errorf("there is something about lists:\n%s", said)
	}

	// What cannot be right changes nothing, and everybody is told.
	m.serve("foreign.txt", "<html>Blocked</html>")
	if out, err := w.cli("lists", "update", "foreign"); err == nil || !strings.Contains(out, "HTML") {
		t.Errorf("an HTML page: %v\n%s", err, out)
	}
	if said := conditionsText(w.status()); !strings.Contains(said, "list foreign was not updated") {
		t.Error(said)
	}
	if w.listed()["foreign"].Entries != fetched["foreign"].Entries {
		t.Error("the list changed")
	}

	// Another content turns names, and a rollback turns them back.
	old := m.files["china.conf"]
	w.resolve("n00007.foreign.test", 0)
	m.serve("china.conf", "server=/foreign.test/1.2.4.8\nserver=/baidu.com/1.2.4.8\n")
	if out, err := w.cli("lists", "update", "cn-domains"); len(old) > 1000 && (err == nil || !strings.Contains(out, "less than half")) {
		t.Errorf("a list of two names: %v\n%s", err, out)
	}
	if out, err := w.cli("lists", "update", "cn-domains", "--force"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = w.cli("lists", "diff", "cn-domains")
	if err != nil {
		t.Error(err)
	}
	inOrder(t, "lists diff", out, "added", "foreign.test", "removed", "turned")
	inOrder(t, "lists diff", out, "n00007.foreign.test: ask foreign → ask domestic")
	if out, err := w.cli("lists", "rollback", "cn-domains"); err != nil || w.listed()["cn-domains"].Entries != fetched["cn-domains"].Entries {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.cli("lists", "rollback", "nothing"); err == nil || !strings.Contains(err.Error()+out, "there are foreign") {
		t.Errorf("%v\n%s", err, out)
	}

	// Without the mirror, and without the daemon.
	m.Close()
	w.stop()
	if l := w.listed()["cn-domains"]; l.Entries != fetched["cn-domains"].Entries || l.Fetched.At.IsZero() {
		t.Errorf("without the daemon: %+v", l)
	}
	w.start()
	if l := w.listed()["country"]; l.Entries != fetched["country"].Entries {
		t.Errorf("after a restart: %+v", l)
	}
	out, _ = w.cli("lists")
	readable(t, out)
	w.noLeaks()
}
