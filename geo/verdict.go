// Package geo says what an address is: at home, abroad, private or unknown,
// and which list, line and prefix say so.
package geo

import (
	"fmt"
	"net/netip"
)

// Region is what an address is.
type Region uint8

// The regions. Bogons are Unknown with List "bogon".
const (
	Unknown Region = iota // no source knows it, or nobody may use it
	Home                  // in the home region (CN unless configured otherwise)
	Abroad                // known, and not at home
	Private               // private to some network: RFC 1918, 4193, 6598, loopback, link-local
)

// String returns the word that config, CLI and JSON use.
func (r Region) String() string {
	switch r {
	case Home:
		return "home"
	case Abroad:
		return "abroad"
	case Private:
		return "private"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("Region(%d)", uint8(r))
}

// Verdict is a region and the evidence for it.
type Verdict struct {
	Region Region
	List   string       // the list or database that decided; "" when none knows the address
	Line   int          // its line in that list, from 1; 0 where the source has no lines
	Prefix netip.Prefix // the prefix that matched; invalid when none did
}
