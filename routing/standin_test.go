package routing_test

import (
	"reflect"
	"testing"

	"smartdns/routing"
)

func TestStandIn(t *testing.T) {
	chain := map[routing.Path]routing.Path{"wg0": "wg1", "wg1": "wg2", "wg2": routing.Direct, "wg3": "wg1", "wg4": "", "wg5": "wg6", "wg6": "wg5"}
	for _, c := range []struct {
		what string
		down []routing.Path
		of   routing.Path
		want routing.Path
	}{
		{"who is up carries its own", nil, "wg0", "wg0"},
		{"direct is direct", nil, routing.Direct, routing.Direct},
		{"the next one", []routing.Path{"wg0"}, "wg0", "wg1"},
		{"the one after that", []routing.Path{"wg0", "wg1"}, "wg0", "wg2"},
		{"the end of the chain", []routing.Path{"wg0", "wg1", "wg2"}, "wg0", routing.Direct},
		{"a chain that begins elsewhere", []routing.Path{"wg3", "wg1"}, "wg3", "wg2"},
		{"another's fault is not its own", []routing.Path{"wg1"}, "wg0", "wg0"},
		{"blocked", []routing.Path{"wg4"}, "wg4", ""},
		{"unknown", []routing.Path{"wg9"}, "wg9", ""},
		{"a circle", []routing.Path{"wg5", "wg6"}, "wg5", ""},
	} {
		up := func(p routing.Path) bool {
			for _, d := range c.down {
				if d == p {
					return false
				}
			}
			return true
		}
		if got := routing.StandIn(c.of, chain, up); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if got, want := routing.Cycle("wg5", chain), []routing.Path{"wg5", "wg6", "wg5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("a circle is %v, want %v", got, want)
	}
	if got := routing.Cycle("wg0", chain); got != nil {
		t.Errorf("%v is no circle", got)
	}
}
