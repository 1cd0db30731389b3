package conformance_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/web/api"
)

// A provider answers every name with its own page. Status says so, and a name
// that does not exist does not exist (SECURITY F-08).
func TestProviderAnswersEveryName(t *testing.T) {
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		w.Write(answer(b, home))
	})
	dir := run(t, forward+"[poison]\nprobe = true\n")
	control := api.Dial(filepath.Join(dir, "run", "control.sock"))
	lookup(t, "first.example.org.")
	for deadline := time.Now().Add(time.Minute); ; {
		s, err := control.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, c := range s.Conditions {
			if strings.Contains(c.What, "names that do not exist") {
				said = c.What
			}
		}
		if strings.Contains(said, home) && strings.Contains(said, authority+" of the foreign side") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("status says %+v", s.Conditions)
		}
	}
	if got := lookup(t, "typo.example.org."); got != "NXDOMAIN" {
		t.Errorf("a name that does not exist: %s", got)
	}
	if got := lookup(t, "first.example.org."); got != "NXDOMAIN" {
		t.Errorf("the one asked before: %s", got)
	}
}
