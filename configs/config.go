// Package configs turns the file that a person writes into a valid Config, or
// into an error that says where it is wrong and what would be right.
package configs

import (
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"smartdns/resolver/dnsname"
	"smartdns/routing"
)

// Pos is a place in a file that a person wrote.
type Pos struct {
	File string // its base name; "default" for what is not in the file
	Line int    // from 1; 0 for what is not in the file
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Config is a whole, valid configuration: every default filled in, every name
// in it resolved to something that exists.
type Config struct {
	File    string // the path it was read from; "" for the embedded defaults
	Listen  Listen
	Tunnels []Tunnel // in the order of the file, at most routing.MaxTunnels
	Sides   []Side   // in the order of the file; domestic and foreign always exist
	Lists   []List   // in the order of the file
	Decide  Decide
	Geo     Geo
	Poison  Poison
	Marks   Marks
	Routing Routing
}

// Listen says where we serve, and whom.
type Listen struct {
	DNS      []netip.AddrPort // over UDP and TCP
	DoT, DoH []netip.AddrPort // over TLS and HTTPS
	Cert     string           // paths of what these show, in PEM; "" for a certificate of our own
	Key      string
	LAN      []string       // interfaces whose clients we serve and route
	Clients  []netip.Prefix // who else may ask
	Redirect bool           // LAN clients' port 53 comes to us
	System   bool           // write resolv.conf
}

// Tunnel is one [tunnel.X] table.
type Tunnel struct {
	Path     routing.Path // X, also the interface name
	Config   string       // path of the wg-quick file
	Device   Device
	WhenDown WhenDown
	Inbound  Inbound
	Pos      Pos
}

// Device says which WireGuard implementation runs a tunnel.
type Device string

// The values of device.
const (
	DeviceAuto      Device = "auto"
	DeviceKernel    Device = "kernel"
	DeviceUserspace Device = "userspace"
)

// WhenDown says what new flows of a dead tunnel do.
type WhenDown string

// The values of when_down.
const (
	WhenDownBlock  WhenDown = "block"
	WhenDownDirect WhenDown = "direct"
)

// Inbound says what happens to new connections that come out of a tunnel.
type Inbound string

// The values of inbound.
const (
	InboundBlock Inbound = "block"
	InboundAllow Inbound = "allow"
)

// Side is one [side.X] table: a named group of upstream servers.
type Side struct {
	Name    string
	Servers []Server // at least one
	Via     routing.Path
	Pos     Pos
}

// Scheme is how a server is spoken to.
type Scheme string

// The schemes. UDP is what a bare address means; it falls over to TCP where
// the protocol says so.
const (
	SchemeUDP Scheme = "udp"
	SchemeTCP Scheme = "tcp"
	SchemeTLS Scheme = "tls"
)

// Server is one upstream server, by address.
type Server struct {
	Scheme Scheme
	Addr   netip.AddrPort
	// ServerName is the name that a TLS server's certificate must be valid
	// for. When it is empty, the certificate must be valid for Addr's IP.
	ServerName string
	Text       string // as the file writes it
}

// ListKind is what the lines of a list are.
type ListKind string

// The kinds, found by reading the list's first lines.
const (
	ListNames    ListKind = "names"    // domain rules
	ListPrefixes ListKind = "prefixes" // CIDR prefixes or ranges
	ListMMDB     ListKind = "mmdb"     // a MaxMind database
)

// List is one [list.X] table.
type List struct {
	Name   string
	File   string // "" for the embedded list of that name
	Region string // the country its prefixes are in, upper case; "" when the list is not one of a country
	Pos    Pos
}

// Auto says how a name in no list is decided.
type Auto string

// The values of auto.
const (
	ForeignFirst Auto = "foreign-first"
	Race         Auto = "race"
	ForeignOnly  Auto = "foreign-only"
)

// Mixed says when an answer with addresses at home and abroad counts as home.
type Mixed string

// The values of mixed.
const (
	MixedAll   Mixed = "all"
	MixedAny   Mixed = "any"
	MixedFirst Mixed = "first"
)

// Decide is the policy.
type Decide struct {
	Home      string // ISO country code, upper case
	Auto      Auto
	Mixed     Mixed
	PrivateOK []dnsname.FQDN // names whose answers may be private, and those below
	Names     []NameRule     // ends in one that matches everything
	Addresses []AddressRule  // ends in one that matches everything
}

// NameRule says what to do about the names it matches. Exactly one of Ask and
// Answer is set.
type NameRule struct {
	Index  int // in decide.names, from 0
	Match  []NameMatch
	Ask    string       // a side's name, or AskAuto
	Answer Answer       // a local answer
	Via    routing.Path // the path of the answered addresses; "" = as decide.addresses says
	Text   string       // its match as the file writes it, on one line, with its quotes
	Pos    Pos
}

// AskAuto is the value of ask that leaves the choice of side to auto.
const AskAuto = "auto"

// NameMatchKind is how a NameMatch compares.
type NameMatchKind uint8

// The kinds of NameMatch.
const (
	MatchSuffix  NameMatchKind = iota // the name and all below it: "example.com", "domain:example.com"
	MatchFull                         // "full:www.example.com"
	MatchKeyword                      // "keyword:example"
	MatchRegexp                       // "regexp:^ad[0-9]+\\."
	MatchList                         // "list:cn-domains"
	MatchAll                          // "*"
)

// NameMatch is one entry of a NameRule's match.
type NameMatch struct {
	Kind   NameMatchKind
	Name   dnsname.FQDN   // MatchSuffix, MatchFull
	Text   string         // MatchKeyword: lower case; MatchList: the list's name
	Regexp *regexp.Regexp // MatchRegexp: on the lower-case name without its last dot
}

// AnswerKind is what a local answer says.
type AnswerKind string

// The kinds of local answer. The empty one means: no local answer.
const (
	AnswerNone     AnswerKind = ""
	AnswerNXDomain AnswerKind = "nxdomain"
	AnswerNoData   AnswerKind = "nodata"
	AnswerRefused  AnswerKind = "refused"
	AnswerBlock    AnswerKind = "block"   // nxdomain with EDE 15
	AnswerAddress  AnswerKind = "address" // Addrs
	AnswerCNAME    AnswerKind = "cname"   // Target, resolved by its own rules
)

// Answer is a local answer.
type Answer struct {
	Kind   AnswerKind
	Addrs  []netip.Addr
	Target dnsname.FQDN
}

// AddressRule says which way the addresses it matches leave.
type AddressRule struct {
	Index int // in decide.addresses, from 0
	Match []AddressMatch
	Via   routing.Path
	Text  string // its match as the file writes it, on one line, with its quotes
	Pos   Pos
}

// AddressMatchKind is how an AddressMatch compares.
type AddressMatchKind uint8

// The kinds of AddressMatch.
const (
	AddrPrivate AddressMatchKind = iota // "private"
	AddrHome                            // "home"
	AddrPrefix                          // "203.0.113.0/24", "2001:db8::1"
	AddrList                            // "list:office-nets"
	AddrAll                             // "*"
)

// AddressMatch is one entry of an AddressRule's match.
type AddressMatch struct {
	Kind   AddressMatchKind
	Prefix netip.Prefix // AddrPrefix
	List   string       // AddrList
}

// Geo says who knows which country an address is in.
type Geo struct {
	Sources []string // list names, or GeoEmbedded; the first that knows the address wins
}

// GeoEmbedded is the source that is part of the program.
const GeoEmbedded = "embedded"

// Poison is what to do about forged answers.
type Poison struct {
	Hold  time.Duration // how long to wait for a better answer than a suspicious one
	Bogus []string      // names of lists whose addresses mean NXDOMAIN
}

// OnMarkError says what to answer when the kernel did not take an address.
type OnMarkError string

// The values of on_error.
const (
	OnErrorServfail OnMarkError = "servfail"
	OnErrorAnswer   OnMarkError = "answer"
)

// Marks is how addresses are tied to paths.
type Marks struct {
	OnError OnMarkError
	Size    uint32 // elements per set
}

// TableMode says who may edit our nftables table.
type TableMode string

// The values of table.
const (
	TableOwned  TableMode = "owned"
	TableShared TableMode = "shared"
)

// Routing is the part of the kernel state that is not a tunnel.
type Routing struct {
	Skip  []string // interfaces whose traffic is left alone
	Table TableMode
}
