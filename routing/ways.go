package routing

import "net/netip"

// A Way says which way a destination leaves, as a route: the most specific one
// that holds an address decides.
type Way struct {
	Dst netip.Prefix // masked; one Way each
	// Path is a tunnel; Direct for the gateway of the uplink; "" for whatever
	// the main table says.
	Path Path
}

// ways are the routes of TableWays. What belongs into a tunnel is locked as the
// tunnel's own table is. What is direct goes with the rest while its family has
// no uplink: the routes are those of the way there is.
func (in Input) ways(f Facts) []Route {
	var routes []Route
	for _, w := range in.Ways {
		fam := FamilyOf(w.Dst.Addr())
		if fam == V6 && !f.IPv6 {
			continue
		}
		r := Route{Table: TableWays, Dst: w.Dst, Protocol: Protocol}
		if fam == V6 {
			r.Metric = metricV6
		}
		switch w.Path {
		case "":
			r.Type = Throw
			routes = append(routes, r)
		case Direct:
			if up, ok := f.Uplink(fam); ok {
				r.Dev, r.Via = up.Dev, up.Via
				routes = append(routes, r)
			}
		default:
			if in.leads(w.Path, fam, f) {
				r.Dev, r.MTU = string(w.Path), in.routeMTU(w.Path, fam)
				routes = append(routes, r)
			}
			routes = append(routes, Route{Table: TableWays, Dst: w.Dst, Type: Unreachable, Metric: MetricLock, Protocol: Protocol})
		}
	}
	return routes
}

// routeMTU is what routes into the tunnel p say.
func (in Input) routeMTU(p Path, fam Family) int {
	for _, t := range in.Tunnels {
		if t.Path == p {
			return t.routeMTU(fam)
		}
	}
	return 0
}

// leads reports whether the tunnel p has a link that takes packets of family
// fam.
func (in Input) leads(p Path, fam Family, f Facts) bool {
	for _, t := range in.Tunnels {
		if t.Path == p && t.Index != 0 && t.carries(fam) {
			l, ok := f.Link(t.Index)
			return ok && (fam == V4 || t.speaksV6(l))
		}
	}
	return false
}
