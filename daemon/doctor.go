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

	"smartdns/resolver/server"
	"smartdns/routing"
	"smartdns/web/api"
)

// Doctor says what on this host would get in the way, errors first. It works
// without the daemon and changes nothing: what has to be tried is tried in a
// network namespace that ends with it.
func Doctor(ctx context.Context, o Options) api.Diagnosis {
	all := diagnose(examine(ctx, o))
	slices.SortStableFunc(all, func(a, b api.Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return api.Diagnosis{
		Schema: api.Schema, Findings: append([]api.Finding{}, all...),
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
	sockets   []server.Holder  // who does at port 53
	running   bool             // a daemon of ours does
	beside    neighbours       // chains of others
	flow      []string         // flowtables
	files     []fileFacts      // that hold secrets
	now       time.Time
	built     time.Time // zero where nobody knows
	space     spaceFacts
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
	} else if c.resolver != "" && !c.asked {
		fix := "write system = true under [listen]"
		switch {
		case c.system && h.running:
			fix = "smartdns status" // it says why it cannot
		case c.system:
			fix = "smartdns run"
		}
		warn(fix, "%s belongs to %s: this host itself does not ask us", resolvConf, c.resolver)
	}
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

// judgePort says who has an address that we are to listen at.
func judgePort(h host) []api.Finding {
	if h.running {
		return nil // it could bind, and says in its status where it could not
	}
	var all []api.Finding
	said := map[string]bool{}
	for _, s := range h.sockets {
		if !slices.ContainsFunc(h.listen, func(a netip.AddrPort) bool { return collide(a, s.Addr) }) {
			continue
		}
		who, fix := "somebody whom we may not look at", "ss -lnp sport = :53"
		if s.PID != 0 {
			who, fix = fmt.Sprintf("%s (process %d)", s.Name, s.PID), "systemctl disable --now "+s.Name
			if n := s.Name; n == "systemd-resolve" || n == "systemd-resolved" {
				fix = "mkdir -p /etc/systemd/resolved.conf.d && printf '[Resolve]\\nDNSStubListener=no\\n' > /etc/systemd/resolved.conf.d/smartdns.conf && systemctl restart systemd-resolved"
			}
			if s.Name == "smartdns" {
				who += ", another program of this name, as in Debian's package"
			}
		}
		if key := who + s.Addr.String(); !said[key] {
			said[key] = true
			all = append(all, api.Finding{Severity: severityError, Fix: fix, What: fmt.Sprintf("port %d of %s is taken by %s", s.Addr.Port(), s.Addr.Addr(), who)})
		}
	}
	return all
}

// collide reports whether two sockets cannot both be bound.
func collide(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	any6 := netip.IPv6Unspecified() // takes IPv4, too, unless told not to
	return a.Addr() == b.Addr() || b.Addr() == any6 ||
		a.Addr().Is4() == b.Addr().Is4() && (a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// judgeLists says which lists are missing, broken or old, and whether the clock
// can be right.
func judgeLists(h host) []api.Finding {
	var all []api.Finding
	newest := h.built
	for _, l := range h.config.lists {
		day, err := time.Parse(time.DateOnly, l.Date)
		known := err == nil
		if known && day.After(newest) {
			newest = day
		}
		switch age := h.now.Sub(day); {
		case l.Error != "":
			all = append(all, api.Finding{Severity: severityWarning, What: fmt.Sprintf("list %s: %s", l.Name, l.Error)})
		case l.Entries == 0:
			all = append(all, api.Finding{Severity: severityWarning, Fix: "smartdns reload", What: fmt.Sprintf("list %s is empty (%s)", l.Name, l.Source)})
		case known && age > listAge:
			all = append(all, api.Finding{Severity: severityWarning, Fix: `write url = "…" in [list.` + l.Name + "]", What: fmt.Sprintf("the data of list %s is %d days old", l.Name, int(age.Hours()/24))})
		}
	}
	if h.now.Add(24 * time.Hour).Before(newest) {
		all = append(all, api.Finding{
			Severity: severityError, Fix: "date -s @" + fmt.Sprint(newest.Unix()),
			What: fmt.Sprintf("the clock says %s, but this program, its last run or a list is of %s: certificates and handshakes will not be valid", h.now.Format(time.DateOnly), newest.Format(time.DateOnly)),
		})
	}
	return all
}
