package hostdns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	nmPath    dbus.ObjectPath = "/org/freedesktop/NetworkManager"
	nmDNSPath dbus.ObjectPath = "/org/freedesktop/NetworkManager/DnsManager"
	nmDNS                     = nmName + ".DnsManager"
	nmGlobal                  = "GlobalDnsConfiguration"
	nmAll                     = "*" // the domain that stands for every name
)

// networkManager is NetworkManager where it writes resolv.conf: its global DNS
// configuration takes the place of what all connections say. It keeps that over
// its own restarts.
type networkManager struct {
	o Options
	b bus
}

func (n networkManager) String() string { return byNetworkManager }

// nmWrites reports whether NetworkManager is set to write resolv.conf. One that
// does not say, as while it starts, is: it had written it.
func nmWrites(ctx context.Context, b bus) bool {
	var mode, rc string
	err := errors.Join(b.property(ctx, nmName, nmDNSPath, nmDNS, "Mode", &mode),
		b.property(ctx, nmName, nmDNSPath, nmDNS, "RcManager", &rc))
	return err != nil || mode != "none" && mode != "systemd-resolved" && rc != "unmanaged"
}

// globalDNS is the property, without its wrapping.
type globalDNS struct {
	Searches, Options []string
	Domains           map[string]globalDomain // nil: no global configuration
}

type globalDomain struct{ Servers, Options []string }

// formerGlobal is what is kept of it, in a file of its own.
type formerGlobal struct {
	Servers []string // that it was told instead
	Former  globalDNS
}

func (n networkManager) saved() string { return n.o.Saved + ".networkmanager" }

func (n networkManager) set(ctx context.Context) (bool, error) {
	ours := texts(n.o.Servers)
	now, err := n.read(ctx)
	if err != nil {
		return false, err
	}
	if slices.Equal(now.Domains[nmAll].Servers, ours) && len(now.Domains) == 1 {
		return false, nil
	}
	var saved formerGlobal
	known, err := readSaved(n.saved(), &saved)
	if err != nil {
		return false, err
	}
	if !known || !slices.Equal(now.Domains[nmAll].Servers, saved.Servers) {
		saved.Former = now
	}
	saved.Servers = ours
	if err := writeSaved(n.saved(), saved); err != nil {
		return false, err
	}
	data, _ := os.ReadFile(n.o.Path) // what it says besides the servers stays
	want := globalDNS{Searches: n.o.Search, Options: wordsOf(data, "options"), Domains: map[string]globalDomain{nmAll: {Servers: ours}}}
	if len(want.Searches) == 0 {
		want.Searches = wordsOf(data, "search")
	}
	return true, n.write(ctx, want)
}

func (n networkManager) restore(ctx context.Context) error {
	var saved formerGlobal
	known, err := readSaved(n.saved(), &saved)
	if err != nil || !known {
		return err
	}
	if !n.b.has(ctx, nmName) {
		return errors.New("nobody is at the bus to take our address from the global DNS configuration; start it, then: smartdns cleanup")
	}
	now, err := n.read(ctx)
	if err != nil {
		return err
	}
	if slices.Equal(now.Domains[nmAll].Servers, saved.Servers) {
		if err := n.write(ctx, saved.Former); err != nil {
			return err
		}
	}
	return forgetSaved(n.saved())
}

func (n networkManager) read(ctx context.Context) (g globalDNS, err error) {
	var all map[string]dbus.Variant
	if err := n.b.property(ctx, nmName, nmPath, nmName, nmGlobal, &all); err != nil {
		return g, err
	}
	var domains map[string]dbus.Variant
	err = errors.Join(storeIn(all, "searches", &g.Searches), storeIn(all, "options", &g.Options), storeIn(all, "domains", &domains))
	for name, v := range domains {
		var fields map[string]dbus.Variant
		var d globalDomain
		err = errors.Join(err, v.Store(&fields), storeIn(fields, "servers", &d.Servers), storeIn(fields, "options", &d.Options))
		if g.Domains == nil {
			g.Domains = map[string]globalDomain{}
		}
		g.Domains[name] = d
	}
	if err != nil {
		return g, fmt.Errorf("reading %s: %w", nmGlobal, err)
	}
	return g, nil
}

func storeIn(from map[string]dbus.Variant, key string, value any) error {
	if v, ok := from[key]; ok {
		return v.Store(value)
	}
	return nil
}

func (n networkManager) write(ctx context.Context, g globalDNS) error {
	all := map[string]dbus.Variant{}
	if len(g.Domains) > 0 {
		domains := map[string]dbus.Variant{}
		for _, name := range slices.Sorted(maps.Keys(g.Domains)) {
			domains[name] = dbus.MakeVariant(variants(map[string][]string{"servers": g.Domains[name].Servers, "options": g.Domains[name].Options}))
		}
		all = variants(map[string][]string{"searches": g.Searches, "options": g.Options})
		all["domains"] = dbus.MakeVariant(domains)
	}
	err := n.b.all(ctx, call{nmName, nmPath, properties + ".Set", []any{nmName, nmGlobal, dbus.MakeVariant(all)}})
	if err != nil {
		return fmt.Errorf("%s (where a file of NetworkManager's has a section [global-dns], that must go, or name us): %w", nmGlobal, err)
	}
	return nil
}

// variants leaves out what is empty.
func variants(from map[string][]string) map[string]dbus.Variant {
	all := map[string]dbus.Variant{}
	for key, words := range from {
		if len(words) > 0 {
			all[key] = dbus.MakeVariant(words)
		}
	}
	return all
}

func texts(all []netip.Addr) []string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return out
}

// wordsOf returns what follows a keyword of resolv.conf, in its last line of
// that kind.
func wordsOf(data []byte, keyword string) []string {
	var words []string
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == keyword {
			words = w[1:]
		}
	}
	return words
}
