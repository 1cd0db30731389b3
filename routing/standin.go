package routing

import "slices"

// StandIn returns which path carries the flows of tunnel p now: p itself while
// it is up, else what whenDown leads to, from tunnel to tunnel, until one is up;
// Direct; or "", where nothing does. A tunnel that whenDown does not hold, or
// holds as "", has no stand-in. A chain that comes back to itself carries
// nothing.
func StandIn(p Path, whenDown map[Path]Path, up func(Path) bool) Path {
	for range len(whenDown) + 1 {
		if !p.IsTunnel() || up(p) {
			return p
		}
		p = whenDown[p]
	}
	return ""
}

// Cycle returns the chain of stand-ins from p back to one that was there before,
// both ends included; nil where it ends.
func Cycle(p Path, whenDown map[Path]Path) []Path {
	var chain []Path
	for ; p.IsTunnel(); p = whenDown[p] {
		if i := slices.Index(chain, p); i >= 0 {
			return append(chain[i:], p)
		}
		chain = append(chain, p)
	}
	return nil
}
