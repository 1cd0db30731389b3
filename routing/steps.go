package routing

import "fmt"

// The steps. Each leaves alone what is already as it says: a second run of the
// same step is no error.
type (
	// AddRule adds a rule with our protocol number.
	AddRule struct{ Rule Rule }
	// DelRule deletes a rule with our protocol number.
	DelRule struct{ Rule Rule }
	// ReplaceRoute adds a route, in the place of one of its destination and
	// metric if there is one.
	ReplaceRoute struct{ Route Route }
	// DelRoute deletes a route.
	DelRoute struct{ Route Route }
	// AddAddr gives an address to an interface, without duplicate detection.
	AddAddr struct{ Addr Addr }
	// DelAddr takes an address from an interface.
	DelAddr struct{ Addr Addr }
	// RenameLink gives a tunnel's interface its name back.
	RenameLink struct{ From, To string }
	// SetMTU sets the MTU of an interface.
	SetMTU struct {
		Dev string
		MTU int
	}
	// SetLinkUp brings an interface up.
	SetLinkUp struct{ Dev string }
	// SetSysctl sets a parameter, and keeps its old value unless one is kept.
	SetSysctl struct{ Key, Value string }
	// RestoreSysctl sets a parameter to its kept value, and forgets that.
	RestoreSysctl struct{ Key, Value string }
)

func (s AddRule) String() string {
	return fmt.Sprintf("%s rule add %s proto %d", s.Rule.Family.ip(), s.Rule, Protocol)
}

func (s DelRule) String() string {
	return fmt.Sprintf("%s rule del %s proto %d", s.Rule.Family.ip(), s.Rule, Protocol)
}

func (s ReplaceRoute) String() string {
	text := s.Route.Family().ip() + " route replace " + s.Route.String()
	if s.Route.Via.IsValid() {
		text += " onlink" // its own table does not lead to it
	}
	return text
}

func (s DelRoute) String() string { return s.Route.Family().ip() + " route del " + s.Route.String() }

func (s AddAddr) String() string {
	cmd := fmt.Sprintf("%s addr add %s dev %s", FamilyOf(s.Addr.Prefix.Addr()).ip(), s.Addr.Prefix, s.Addr.Dev)
	if s.Addr.Prefix.Addr().Is6() {
		cmd += " nodad"
	}
	return cmd
}

func (s DelAddr) String() string {
	return fmt.Sprintf("%s addr del %s dev %s", FamilyOf(s.Addr.Prefix.Addr()).ip(), s.Addr.Prefix, s.Addr.Dev)
}

func (s RenameLink) String() string {
	return fmt.Sprintf("ip link set dev %s name %s", s.From, s.To)
}

func (s SetMTU) String() string { return fmt.Sprintf("ip link set dev %s mtu %d", s.Dev, s.MTU) }

func (s SetLinkUp) String() string { return "ip link set dev " + s.Dev + " up" }

func (s SetSysctl) String() string { return "sysctl -w " + sysctlName(s.Key) + "=" + s.Value }

func (s RestoreSysctl) String() string { return "sysctl -w " + sysctlName(s.Key) + "=" + s.Value }
