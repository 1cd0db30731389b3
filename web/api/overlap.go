package api

// Overlaps is where the lists of a file contradict each other.
type Overlaps struct {
	Schema      int       `json:"schema"`
	NameCount   int       `json:"name_count"`   // names that lists of two sides have
	Names       []Overlap `json:"names"`        // the first of them
	PrefixCount int       `json:"prefix_count"` // prefixes that one source calls home and another abroad
	Prefixes    []Overlap `json:"prefixes"`     // the first of them
}

// Overlap is something of which two lists say otherwise.
type Overlap struct {
	What  string `json:"what"` // the name or prefix
	Used  Claim  `json:"used"` // what decides, unless the file itself says more
	Other Claim  `json:"other"`
}

// Claim is what one list says.
type Claim struct {
	Says  string `json:"says"`            // "ask foreign", "home"
	List  string `json:"list"`            // "cn-domains:12 (2026-08-02)"
	Entry string `json:"entry,omitempty"` // the name or prefix that stands there
}
