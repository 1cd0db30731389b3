package api

import (
	"net/netip"
	"time"
)

// KillSwitch is how the kill switch is.
type KillSwitch struct {
	State  string  `json:"state"` // "off", "secured", "connecting", "blocked", "insecure" (it could not be installed)
	Portal *Portal `json:"portal,omitempty"`
}

// Portal is what is open in the kill switch for the login of a network, for this
// host alone.
type Portal struct {
	Schema    int          `json:"schema"`
	Open      bool         `json:"open"`
	Until     time.Time    `json:"until,omitzero"`
	Resolvers []netip.Addr `json:"resolvers"` // asked for this host's names meanwhile, at port 53
	Addrs     []netip.Addr `json:"addrs"`     // reached at TCP 80 and 443
}
