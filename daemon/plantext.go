package daemon

import (
	"fmt"

	"smartdns/routing"
)

// shownRoutes is how many routes of one way a plan shows that people read.
const shownRoutes = 24

// stepTexts are the steps as commands. Unless all are wanted, a comment stands
// for many routes that lead the same way.
func stepTexts(steps []routing.Step, all bool) []string {
	many := map[string]int{}
	for _, s := range steps {
		if way, ok := wayText(s); ok && !all {
			many[way]++
		}
	}
	var out []string
	for _, s := range steps {
		way, _ := wayText(s)
		switch n := many[way]; {
		case n > shownRoutes:
			out = append(out, fmt.Sprintf("# %d routes %s, not shown here", n, way))
			many[way] = -1
		case n >= 0:
			out = append(out, s.String())
		}
	}
	return out
}

// wayText says where a route of the ways by destination leads.
func wayText(s routing.Step) (string, bool) {
	r, ok := s.(routing.ReplaceRoute)
	if !ok || r.Route.Table != routing.TableWays {
		return "", false
	}
	to := "dev " + r.Route.Dev
	switch {
	case r.Route.Type != routing.Unicast:
		to = string(r.Route.Type)
	case r.Route.Via.IsValid():
		to = "via " + r.Route.Via.String() + " " + to
	}
	return fmt.Sprintf("%s %s table %d", r.Route.Family(), to, r.Route.Table), true
}
