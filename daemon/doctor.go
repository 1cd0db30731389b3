package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/web/api"
)

// Doctor says what on this host would get in the way, errors first. It works
// without the daemon and changes nothing: what has to be tried is tried in a
// network namespace that ends with it.
func Doctor(ctx context.Context, o Options) api.Diagnosis {
	h := examine(ctx, o)
	all := diagnose(h)
	slices.SortStableFunc(all, func(a, b api.Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return api.Diagnosis{
		Schema: api.Schema, Findings: append([]api.Finding{}, all...), Kernel: append([]api.Feature{}, h.kernel...),
		Fine: !slices.ContainsFunc(all, func(f api.Finding) bool { return f.Severity == severityError }),
	}
}

// host is what an examination has seen.
type host struct {
	config    configFacts
	found     []api.Finding // said already by those who know better: gates, conntrack
	conflicts []routing.Condition
	links     []routing.Iface
	listen    []netip.AddrPort // where we are to take queries
	sockets   []portHolder     // who does
	running   bool             // a daemon of ours does
	beside    neighbours       // chains of others
	flow      []string         // flowtables
	files     []fileFacts      // that hold secrets
	clock     clockFacts
	space     spaceFacts
	kernel    []api.Feature
}

// configFacts are what smartdns check says, and of what.
type configFacts struct {
	errors   []string
	warnings []string
	lists    []api.List
	tunnels  []routing.Path
	system   bool // resolv.conf is to be ours
	asked    bool // and names us
	resolver string
	refused  error // why resolv.conf cannot be ours
}

// clockFacts are what time it is said to be.
type clockFacts struct {
	now      time.Time
	known    time.Time // of this program, or of its last run: past; zero where nobody knows
	unsynced bool      // nothing keeps the clock right
}

// fileFacts are a file that others should not read.
type fileFacts struct {
	path string
	mode fs.FileMode
	uid  uint32
}

// spaceFacts are how much room there is.
type spaceFacts struct {
	state  string // the directory
	err    string // why it cannot be written; "" if it can
	disk   uint64 // bytes left for it
	memory uint64 // bytes available
}

const (
	leastDisk   = 16 << 20
	leastMemory = 48 << 20
	listAge     = 90 * 24 * time.Hour
)

// diagnose turns what was seen into findings.
func diagnose(h host) []api.Finding {
	all := slices.Clone(h.found)
	bad := func(fix, format string, args ...any) {
		all = append(all, api.Finding{Severity: severityError, Fix: fix, What: fmt.Sprintf(format, args...)})
	}
	warn := func(fix, format string, args ...any) {
		all = append(all, api.Finding{Severity: severityWarning, Fix: fix, What: fmt.Sprintf(format, args...)})
	}
	for _, e := range h.config.errors {
		what, fix, ok := strings.Cut(e, ": chmod ")
		if ok {
			fix = "chmod " + fix
		}
		bad(fix, "%s", what)
	}
	for _, w := range h.config.warnings {
		warn("", "%s", w)
	}
	all = append(all, judgePort(h)...)
	for _, c := range h.conflicts {
		warn(conflictFix(c), "%s", c.Text)
	}
	for _, l := range h.links {
		if l.Kind == kindWireGuard && l.Up && !slices.Contains(h.config.tunnels, routing.Path(l.Name)) {
			warn("wg-quick down "+l.Name, "another WireGuard interface, %s, is up: where it routes everything, it and our tunnels contend for the host's traffic", l.Name)
		}
	}
	for _, f := range h.flow {
		if len(h.config.tunnels) > 0 {
			whose, fix := h.beside.flowtable(f)
			warn(fix, "flowtable %s%s carries established connections past our marks: they may leave another way than they began", f, whose)
		}
	}
	if c := h.config; c.system && c.asked && !h.running {
		bad("smartdns run", "this host asks us for names, and no daemon of ours runs")
	}
	judgeResolvConf(h.config, h.running, warn)
	all = append(all, judgeLists(h)...)
	for _, f := range h.files {
		if f.mode.Perm()&0o077 != 0 {
			warn("chmod 0600 "+f.path, "others may read %s, which holds a secret: its mode is %#o", f.path, f.mode.Perm())
		}
		if f.uid != 0 {
			warn("chown root "+f.path, "%s, which holds a secret, belongs to user %d", f.path, f.uid)
		}
	}
	switch s := h.space; {
	case s.err != "":
		bad("mkdir -p "+s.state+" && mount -o remount,rw "+s.state, "nothing can be kept in %s: %s", s.state, s.err)
	case s.disk < leastDisk:
		bad("df -h "+s.state, "the disk is nearly full: %d MiB are left for %s, where verdicts, lists and the cache are kept", s.disk>>20, s.state)
	}
	if h.space.memory < leastMemory {
		warn("smartdns status", "memory is short: %d MiB are available; the lists and the cache need about %d", h.space.memory>>20, leastMemory>>20)
	}
	return all
}

// judgeResolvConf says who keeps this host from asking us, and how that one is told
// to let it.
func judgeResolvConf(c configFacts, running bool, warn func(fix, format string, args ...any)) {
	if c.asked {
		return
	}
	whose := ""
	if c.resolver != "" {
		whose = ", which belongs to " + c.resolver + ","
	}
	switch {
	case c.refused != nil:
		what, fix, ok := strings.Cut(strings.TrimSuffix(c.refused.Error(), " ("+hostdns.ErrNotOurs.Error()+")"), ": ")
		if !ok {
			fix = "smartdns status"
		}
		warn(fix, "%s%s cannot be made to name us: %s", resolvConf, whose, what)
	case c.resolver == "":
	case !c.system:
		warn("write system = true under [listen]", "%s belongs to %s: this host itself does not ask us", resolvConf, c.resolver)
	case !running:
		warn("smartdns run", "%s belongs to %s: this host itself does not ask us", resolvConf, c.resolver)
	default: // it tried, and its status says what happened
		warn(cmp.Or(hostdns.LetGo(c.resolver), "smartdns status"), "%s belongs to %s, which does not let go of it: this host itself does not ask us", resolvConf, c.resolver)
	}
}

// conflictFix is the command in a condition's text, if it has one.
// What uses bits of our field may be all the same to its owner: no fix is known.
func conflictFix(c routing.Condition) string {
	if c.Fix != "" {
		return c.Fix
	}
	if _, fix, ok := strings.Cut(c.Text, "put it back: "); ok {
		return fix
	}
	return ""
}

// judgeLists says which lists are missing, broken or old, and whether the clock
// can be right.
func judgeLists(h host) []api.Finding {
	var all []api.Finding
	newest := h.clock.known
	for _, l := range h.config.lists {
		day, err := time.Parse(time.DateOnly, l.Date)
		known := err == nil
		if known && day.After(newest) {
			newest = day
		}
		switch age := h.clock.now.Sub(day); {
		case l.Error != "":
			all = append(all, api.Finding{Severity: severityWarning, What: fmt.Sprintf("list %s: %s", l.Name, l.Error)})
		case l.Entries == 0:
			all = append(all, api.Finding{Severity: severityWarning, Fix: "smartdns reload", What: fmt.Sprintf("list %s is empty (%s)", l.Name, l.Source)})
		case known && age > listAge:
			all = append(all, api.Finding{Severity: severityWarning, Fix: `write url = "…" in [list.` + l.Name + "]", What: fmt.Sprintf("the data of list %s is %d days old", l.Name, int(age.Hours()/24))})
		}
	}
	if wrong := h.clock.now.Add(24 * time.Hour).Before(newest); !wrong && h.clock.unsynced {
		all = append(all, api.Finding{
			Severity: severityWarning, Fix: "timedatectl set-ntp true; on OpenWrt: service sysntpd start",
			What: "nothing keeps the clock right: no NTP client has told the kernel that it does, and certificates and handshakes go by it",
		})
	} else if wrong {
		all = append(all, api.Finding{
			Severity: severityError, Fix: "date -s @" + fmt.Sprint(newest.Unix()),
			What: fmt.Sprintf("the clock says %s, but this program, its last run or a list is of %s: certificates and handshakes will not be valid", h.clock.now.Format(time.DateOnly), newest.Format(time.DateOnly)),
		})
	}
	return all
}
