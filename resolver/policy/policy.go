// Package policy holds the two ordered lists that are the whole policy: whom
// to ask about a name, and which way an address leaves. The first match wins.
package policy

import (
	"net/netip"

	"smartdns/resolver/dnsname"
	"smartdns/routing"
)

// Action is what a Rule asks for.
type Action uint8

// The actions.
const (
	AskSide Action = iota // ask Rule.Side
	AskAuto               // let auto choose the side
	Local                 // answer Rule.Answer without asking anybody
)

// AnswerKind is what a local answer says.
type AnswerKind string

// The kinds of local answer.
const (
	AnswerNXDomain AnswerKind = "nxdomain"
	AnswerNoData   AnswerKind = "nodata"
	AnswerRefused  AnswerKind = "refused"
	AnswerBlock    AnswerKind = "block"   // NXDOMAIN, for a name that nobody shall reach
	AnswerNull     AnswerKind = "null"    // 0.0.0.0 and ::, and nothing of other types
	AnswerAddress  AnswerKind = "address" // Answer.Addrs
	AnswerCNAME    AnswerKind = "cname"   // Answer.Target, resolved by its own rules
)

// Answer is a local answer.
type Answer struct {
	Kind   AnswerKind
	Addrs  []netip.Addr
	Target dnsname.FQDN
}

// Shape is what a rule does to answers beside the addresses' own paths. The
// zero Shape follows the state of the paths.
type Shape struct {
	AAAA  AAAAShape
	HTTPS HTTPSShape
}

// AAAAShape says which IPv6 addresses of a name are answered, in AAAA records
// and in hints.
type AAAAShape string

// The shapes of AAAA.
const (
	AAAAAuto AAAAShape = ""     // those whose path carries IPv6; DNS64 where there are none
	AAAADrop AAAAShape = "drop" // none
	AAAAKeep AAAAShape = "keep" // all that there are, and no others
)

// HTTPSShape says what of a name's HTTPS and SVCB records is answered.
type HTTPSShape string

// The shapes of HTTPS.
const (
	HTTPSAuto  HTTPSShape = ""      // all, without the hints that an address answer would not have
	HTTPSStrip HTTPSShape = "strip" // all, without any hint
	HTTPSDrop  HTTPSShape = "drop"  // nothing
)

// Rule is a line of decide.names: what to do about the names it matches, and,
// when Match returned it, why it matched.
type Rule struct {
	Index  int    // in decide.names, from 0
	Text   string // its match as the file writes it
	Pos    string // "file:line"
	Action Action
	Side   string       // the side that AskSide asks
	Answer Answer       // the answer of Local
	Via    routing.Path // the path of the answered addresses; "" as the address rules say
	Shape  Shape
	By     Evidence
	// Alone says that what Side answers is taken as it is: nobody else is asked
	// for another opinion, and its CNAMEs may lead anywhere.
	Alone bool
}

// Evidence is the entry of a rule that matched a name.
type Evidence struct {
	Kind Kind
	// Text is the matched suffix of the name in canonical form, the keyword or
	// the expression; "" for All.
	Text string
	List string // the list that has the entry; "" when the rule itself has it
	Line int    // its line in that list, from 1; 0 without one
}

// Kind is how an entry compares with a name.
type Kind uint8

// The kinds of entry.
const (
	Suffix  Kind = iota // the name and all below it
	Full                // the name alone
	Keyword             // a part of the name, wherever it stands
	Regexp              // an expression over the name without its last dot
	All                 // every name
)

// String returns the word that the config file uses.
func (k Kind) String() string {
	switch k {
	case Suffix:
		return "domain"
	case Full:
		return "full"
	case Keyword:
		return "keyword"
	case Regexp:
		return "regexp"
	case All:
		return "*"
	}
	return "unknown"
}
