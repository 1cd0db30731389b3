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
	Records Records
	DNS64   DNS64
	Geo     Geo
	Poison  Poison
	Cache   Cache
	Marks   Marks
	Routing Routing
}

// Listen says where we serve, and whom.
type Listen struct {
	DNS      []netip.AddrPort          // over UDP and TCP
	DoT, DoH []netip.AddrPort          // over TLS and HTTPS
	Sides    map[netip.AddrPort]string // of listeners that ask one side whatever the lines say
	Cert     string                    // paths of what these show, in PEM; "" for a certificate of our own
	Key      string
	LAN      []string       // interfaces whose clients we serve and route
	Clients  []netip.Prefix // who else may ask
	Redirect bool           // LAN clients' port 53 comes to us
	Bypass   Bypass
	System   bool // this host asks us
}

// Tunnel is one [tunnel.X] table.
type Tunnel struct {
	Path      routing.Path // X, also the interface name
	Config    string       // path of the wg-quick file
	Device    Device
	WhenDown  WhenDown
	Inbound   Inbound
	Translate Translate
	Hooks     bool // the commands of the wg-quick file are run
	Pos       Pos
}

// Device says which WireGuard implementation runs a tunnel.
type Device string

// The values of device.
const (
	DeviceAuto      Device = "auto"
	DeviceKernel    Device = "kernel"
	DeviceUserspace Device = "userspace"
)

// WhenDown says what flows of a dead tunnel do: block, direct, or the name of
// the tunnel that stands in.
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

// Translate says what goes into a tunnel with the tunnel's own address.
type Translate string

// The values of translate.
const (
	TranslateAll    Translate = "all"
	TranslatePublic Translate = "public" // what goes from the LAN to private networks keeps its own
)

// Side is one [side.X] table: a named group of upstream servers.
type Side struct {
	Name    string
	Servers []Server // at least one
	Via     routing.Path
	Choose  Choose
	// Bootstrap are servers by address that are asked, on the side's own path,
	// for the addresses of those that are known by name; none where there are
	// no such.
	Bootstrap []Server
	SOCKS5    Proxy
	ECS       ECS
	Private   bool // its answers may hold private addresses
	Pos       Pos
}

// Choose says which server of a side is asked.
type Choose string

// The values of choose.
const (
	ChooseFastest Choose = "fastest"
	ChooseOrder   Choose = "order"
	ChooseRace    Choose = "race"
)

// Proxy is a SOCKS5 proxy. The zero value is none.
type Proxy struct {
	Addr           netip.AddrPort
	User, Password string // empty where it asks for none
}

// ECS says which client subnet queries carry (RFC 7871). The zero value is
// none.
type ECS struct {
	Client bool         // the client's own, unless it is private
	Prefix netip.Prefix // this one, always
}

// Scheme is how a server is spoken to.
type Scheme string

// The schemes. UDP is what a bare address means; it falls over to TCP where
// the protocol says so.
const (
	SchemeUDP   Scheme = "udp"
	SchemeTCP   Scheme = "tcp"
	SchemeTLS   Scheme = "tls"   // RFC 7858
	SchemeHTTPS Scheme = "https" // RFC 8484
	SchemeH3    Scheme = "h3"    // the same over HTTP/3
	SchemeQUIC  Scheme = "quic"  // RFC 9250
)

// Server is one upstream server.
type Server struct {
	Scheme Scheme
	// Addr is where it listens. Of a server by name it holds the port alone.
	Addr      netip.AddrPort
	Host      string       // the name it is known by, without last dot; "" when it is known by address
	Addresses []netip.Addr // of Host; none: the side's bootstrap servers know
	Path      string       // of https and h3
	// ServerName is the name that an encrypted server's certificate must be
	// valid for. When it is empty, that is Host, or Addr's IP.
	ServerName string
	Pins       []Pin  // of the keys that it may have, whoever vouches for them
	Text       string // as the file writes it
}

// ListFormat is how a list file is written.
type ListFormat string

// The formats.
const (
	ListAuto    ListFormat = "auto" // found by reading its first lines
	ListDomains ListFormat = "domains"
	ListDnsmasq ListFormat = "dnsmasq"
	ListHosts   ListFormat = "hosts"
	ListCIDR    ListFormat = "cidr"
	ListAPNIC   ListFormat = "apnic"
	ListMMDB    ListFormat = "mmdb"
	ListAdblock ListFormat = "adblock"
	ListGFWList ListFormat = "gfwlist"
	ListRPZ     ListFormat = "rpz"
	ListGeosite ListFormat = "geosite"
	ListGeoIP   ListFormat = "geoip"
)

// ListFormats returns what a format may be, but ListAuto.
func ListFormats() []ListFormat {
	return []ListFormat{
		ListDomains, ListDnsmasq, ListHosts, ListAdblock, ListGFWList, ListGeosite, ListRPZ,
		ListCIDR, ListAPNIC, ListGeoIP, ListMMDB,
	}
}

// List is one [list.X] table.
type List struct {
	Name   string
	File   string // "" for one that is fetched, and for the embedded list of that name
	Format ListFormat
	Code   string // the category of a geosite or geoip file, "cn" or "google@cn"; "" in other files
	Region string // the country its prefixes are in, upper case; "" when the list is not one of a country
	Fetch  Fetch
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
	Clients   []ClientRule   // whose path comes before all of that
}

// NameRule says what to do about the names it matches. Exactly one of Ask and
// Answer is set.
type NameRule struct {
	Index   int // in decide.names, from 0
	Match   []NameMatch
	Ask     string       // a side's name, or AskAuto
	Answer  Answer       // a local answer
	Via     routing.Path // the path of the answered addresses; "" = as decide.addresses says
	AAAA    AAAA         // which IPv6 addresses are answered
	HTTPS   HTTPS        // what of service records is answered
	Text    string       // its match as the file writes it, on one line, with its quotes
	Clients Clients      // for whom it holds
	Pos     Pos
}

// AAAA says which IPv6 addresses of a name are answered.
type AAAA string

// The values of aaaa.
const (
	AAAAAuto AAAA = "auto" // those whose path carries IPv6
	AAAADrop AAAA = "drop" // none
	AAAAKeep AAAA = "keep" // all
)

// HTTPS says what of a name's HTTPS and SVCB records is answered.
type HTTPS string

// The values of https.
const (
	HTTPSAuto  HTTPS = "auto"  // all, without the hints that an address answer would not have
	HTTPSStrip HTTPS = "strip" // all, without any hint
	HTTPSDrop  HTTPS = "drop"  // nothing
)

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
	MatchReverse                      // "reverse:192.168.50.0/24": the names of its addresses
	MatchAll                          // "*"
)

// NameMatch is one entry of a NameRule's match.
type NameMatch struct {
	Kind   NameMatchKind
	Name   dnsname.FQDN   // MatchSuffix, MatchFull
	Text   string         // MatchKeyword: lower case; MatchList: the list's name
	Regexp *regexp.Regexp // MatchRegexp: on the lower-case name without its last dot
	Prefix netip.Prefix   // MatchReverse
}

// AnswerKind is what a local answer says.
type AnswerKind string

// The kinds of local answer. The empty one means: no local answer.
const (
	AnswerNone     AnswerKind = ""
	AnswerNXDomain AnswerKind = "nxdomain"
	AnswerNoData   AnswerKind = "nodata"
	AnswerRefused  AnswerKind = "refused"
	AnswerBlock    AnswerKind = "block"   // nxdomain
	AnswerNull     AnswerKind = "null"    // 0.0.0.0 and ::
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

// Records are the names that have records of the user's. They come before the
// rules.
type Records struct {
	Lines []RecordLine // in the order of the file
	Zones []RecordFile // zone files
	Hosts []RecordFile // files like /etc/hosts
}

// RecordLine is a record as a zone file writes it.
type RecordLine struct {
	Text string
	Pos  Pos
}

// RecordFile is a file of records.
type RecordFile struct {
	Path string
	Pos  Pos // where the config names it
}

// DNS64 makes AAAA records out of A records (RFC 6147).
type DNS64 struct {
	Prefix  netip.Prefix   // invalid: there is none
	Exclude []netip.Prefix // of v6: they count as absent; of v4: they stay what they are
	NAT64   NAT64
}

// NAT64 says where the addresses that DNS64 makes become v4 again.
type NAT64 string

// The values of nat64.
const (
	NAT64Here NAT64 = "here" // on this host or before it: v4 packets leave
	NAT64Path NAT64 = "path" // beyond the path of the v4 address: v6 packets leave
)

// Geo says who knows which country an address is in.
type Geo struct {
	Sources []string // list names, or GeoEmbedded; the first that knows the address wins
	// What is home or abroad whatever the sources say: the longest prefix wins.
	// No prefix stands in both.
	Home, Abroad []GeoEntry
}

// GeoEntry is a prefix, or the prefixes of a list.
type GeoEntry struct {
	Prefix netip.Prefix // invalid for a list
	List   string       // "" for a prefix
	Pos    Pos
}

// GeoEmbedded is the source that is part of the program.
const GeoEmbedded = "embedded"

// Poison is what to do about forged answers.
type Poison struct {
	Hold  time.Duration // how long to wait for a better answer than a suspicious one
	Bogus []string      // names of lists whose addresses mean NXDOMAIN
	Probe bool          // ask servers for names that do not exist
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

// RoutingMode says what decides which way a packet leaves.
type RoutingMode string

// The values of mode.
const (
	ModeMark   RoutingMode = "mark"   // marks of answered addresses, then the lines of addresses
	ModeRoutes RoutingMode = "routes" // the lines of addresses, as routes
	ModeAll    RoutingMode = "all"    // everything but what is private goes into the tunnel
	ModeOff    RoutingMode = "off"    // somebody else: nothing in the kernel is ours
)

// Marks reports whether answers mark their addresses.
func (m RoutingMode) Marks() bool { return m == ModeMark }

// TableMode says who may edit our nftables table.
type TableMode string

// The values of table.
const (
	TableOwned  TableMode = "owned"
	TableShared TableMode = "shared"
)

// Routing is the part of the kernel state that is not a tunnel.
type Routing struct {
	Mode       RoutingMode
	Skip       []string // interfaces whose traffic is left alone
	Table      TableMode
	Strict     bool // nothing leaves past the tunnels undecided, also while nobody runs
	Masquerade Masquerade
	Flowtable  bool // the kernel carries direct flows past the chains
}
