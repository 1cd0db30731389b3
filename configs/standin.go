package configs

import (
	"slices"
	"strings"

	"smartdns/routing"
)

// Path returns the way of the flows while their tunnel is down; "" when they are
// blocked.
func (w WhenDown) Path() routing.Path {
	if w == WhenDownBlock {
		return ""
	}
	return routing.Path(w)
}

// whenDown reads what the flows of a tunnel do while it is down.
func (c converter) whenDown(name string, raw rawString) WhenDown {
	others := slices.DeleteFunc(tableNames(c.raw.Tunnel), func(s string) bool { return s == name })
	switch w := WhenDown(raw.value); {
	case !raw.given():
	case w == WhenDownBlock, w == WhenDownDirect, slices.Contains(others, raw.value):
		return w
	case raw.value == name:
		c.addf(raw.place, `%s cannot stand in for itself: write "block", "direct" or the name of another tunnel`, name)
	default:
		words := append([]string{string(WhenDownBlock), string(WhenDownDirect)}, others...)
		c.addf(raw.place, "no such value or tunnel %s: it is %s", quote(raw.value), oneOf(words))
	}
	return WhenDownBlock
}

// checkStandIns refuses tunnels that stand in for one another in a circle: with
// all of them down there would be no end.
func (c converter) checkStandIns(raw named[rawTunnel]) {
	next := map[routing.Path]routing.Path{}
	for _, t := range raw {
		if w := WhenDown(t.body.WhenDown.value); slices.Contains(tableNames(c.raw.Tunnel), string(w)) && string(w) != t.name {
			next[routing.Path(t.name)] = w.Path()
		}
	}
	for _, t := range raw {
		circle := routing.Cycle(routing.Path(t.name), next)
		if len(circle) == 0 || circle[0] != routing.Path(t.name) {
			continue
		}
		var names []string
		for _, p := range circle {
			names = append(names, string(p))
			delete(next, p) // said once
		}
		c.addf(t.body.WhenDown.place, `tunnels stand in for one another in a circle (%s): write "block" or "direct" for one of them`, strings.Join(names, " → "))
	}
}
