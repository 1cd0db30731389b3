package daemon

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

// heldClock stands still where a test puts it.
type heldClock struct {
	now  time.Time
	sync bool
}

func (c *heldClock) Now() time.Time     { return c.now }
func (c *heldClock) Synchronised() bool { return c.sync }

// A clock that is behind what is known is waited for, certificates are judged by
// what is known meanwhile, and it ends by itself (SECURITY F-24).
func TestTheClockIsWaitedFor(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	clock := &heldClock{now: now}
	o := Options{Dirs: Dirs{State: t.TempDir()}, Log: slog.New(slog.DiscardHandler), Clock: clock}
	opened := func() *timekeeper {
		k := &timekeeper{}
		k.open(o)
		return k
	}
	k := opened()
	if k.waiting() {
		t.Fatal("a fresh host waits for time")
	}
	k.keep(false)

	for _, step := range []struct {
		what     string
		now      time.Time
		sync     bool
		waiting  bool
		judgedBy time.Time
	}{
		{"1970", time.Unix(0, 0), false, true, now},
		{"10 years back", now.AddDate(-10, 0, 0), false, true, now},
		{"an hour back", now.Add(-time.Hour), false, true, now},
		{"what a client of NTP does", now.Add(-5 * time.Second), false, false, now},
		{"an hour on", now.Add(time.Hour), false, false, now.Add(time.Hour)},
		{"10 years on", now.AddDate(10, 0, 0), false, false, now.AddDate(10, 0, 0)},
		{"back from there", now.Add(2 * time.Hour), false, true, now.AddDate(10, 0, 0)},
		{"back from there, by NTP", now.Add(2 * time.Hour), true, false, now.Add(2 * time.Hour)},
	} {
		clock.now, clock.sync = step.now, step.sync
		k.look()
		if k.waiting() != step.waiting || !k.Now().Equal(step.judgedBy) {
			t.Errorf("%s: waiting %t, certificates are judged by %s; want %t, %s", step.what, k.waiting(), k.Now(), step.waiting, step.judgedBy)
		}
	}

	// What was known is known after a restart.
	clock.sync = false
	k.keep(true)
	clock.now = time.Unix(1000, 0)
	if k = opened(); !k.waiting() || !k.Now().Equal(now.Add(2*time.Hour)) {
		t.Errorf("after a restart in 1970: waiting %t, judged by %s", k.waiting(), k.Now())
	}
	if c := k.condition(); !strings.Contains(c.What, "waiting for time: the clock says 1970-01-01") || !strings.Contains(c.What, "2026-11-23 06:00 UTC") {
		t.Errorf("the condition is %q", c.What)
	}
	if !waitingNow(o) {
		t.Error("the plan does not wait")
	}
	k.keep(true)
	if k = opened(); !k.waiting() {
		t.Error("a wrong time was kept")
	}
	if err := os.WriteFile(k.file.path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k = opened(); k.waiting() {
		t.Error("a damaged file makes it wait")
	}
}

func TestTimeServersAreFoundInTheFilesOfTheirClients(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	got := timeServers(fstest.MapFS{
		"etc/systemd/timesyncd.conf":          file("[Time]\n#NTP=no.example\nNTP=a.example 192.0.2.1\nFallbackNTP = b.example\nRootDistanceMaxSec=5\n"),
		"etc/systemd/timesyncd.conf.d/x.conf": file("[Time]\nNTP=c.example"),
		"etc/chrony/chrony.conf":              file("! no.example\npool d.example iburst maxsources 4\n  server e.example\n\nmakestep 1 3\n'\n"),
		"etc/chrony/sources.d/y.sources":      file("peer 2001:db8::1\nserver f.example iburst nts\n"),
		"etc/ntp.conf":                        file("server 127.127.1.0\nrestrict default\nserver g.example\n"),
		"etc/config/system":                   file("config timeserver 'ntp'\n\toption enabled '1'\n\tlist server 'h.example'\n"),
		"etc/conf.d/ntpd":                     file(`NTPD_OPTS="-N -p i.example -p"` + "\n"),
		"etc/openntpd/ntpd.conf":              file("servers j.example\nconstraints from \"www.example\"\n"),
	})
	want := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example", "h.example", "i.example", "j.example"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names of time servers (-want +got):\n%s", d)
	}
	first := timeFirst(got)
	for name, is := range map[dnsname.FQDN]bool{"2.debian.pool.ntp.org.": true, "ntp.aliyun.com.": true, "j.example.": true, "www.example.": false} {
		if r, ok := first.Match(name); ok != is || is && (r.Side != resolver.Domestic || !r.Alone || r.Action != policy.AskSide) {
			t.Errorf("%s: %v, %+v", name, ok, r)
		}
	}
}
