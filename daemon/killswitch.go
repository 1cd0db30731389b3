package daemon

import (
	"slices"

	"smartdns/routing/wg"
	"smartdns/web/api"
)

// The states of the kill switch (SECURITY 6.4).
const (
	switchOff        = "off"
	switchSecured    = "secured"    // nothing is wrong with it, and a tunnel is up
	switchConnecting = "connecting" // nothing leaves undecided; no tunnel is up yet
	switchBlocked    = "blocked"    // nothing leaves undecided; the tunnels are down
	switchInsecure   = "insecure"   // it could not be installed, or is not as it should be
)

// killSwitch says how the kill switch is.
func killSwitch(v *view, tunnels []api.Tunnel) string {
	if !v.parts.strict() {
		return switchOff
	}
	for _, part := range []string{"nft", "routes"} {
		if _, failed := v.fails[part]; failed {
			return switchInsecure
		}
	}
	in := func(states ...wg.State) bool {
		return slices.ContainsFunc(tunnels, func(t api.Tunnel) bool { return slices.Contains(states, wg.State(t.State)) })
	}
	switch {
	case v.table == nil:
		return switchInsecure
	case in(wg.Up, wg.Stale):
		return switchSecured
	case in(wg.Connecting):
		return switchConnecting
	}
	return switchBlocked
}

// StatusWithout is the status of a host whose daemon does not run, but whose
// kill switch is closed.
func StatusWithout(version string) api.Status {
	const what = "the daemon does not run, and the kill switch is closed: nothing leaves but to the LAN"
	return api.Status{
		Schema: api.Schema, Version: version, KillSwitch: api.KillSwitch{State: switchBlocked}, Summary: "not fine: " + what,
		Conditions: []api.Condition{{Severity: severityError, What: what, Fix: "smartdns run, or smartdns down to open it"}},
		Tunnels:    []api.Tunnel{}, Sides: []api.Side{}, Lists: []api.List{}, Sets: []api.Set{}, Counters: []api.Counter{}, Classified: []string{},
	}
}
