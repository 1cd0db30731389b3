// Package api is the JSON shapes that the daemon serves and the command line
// prints, and the client that fetches them.
package api

import (
	"net/netip"
	"time"
)

// Schema is the version of every shape here. A field may be added without a
// new version; it is raised when one changes its meaning or goes.
const Schema = 1

// Seconds is a duration, in JSON a number of seconds.
type Seconds float64

// Since converts a duration.
func Since(d time.Duration) Seconds { return Seconds(d.Seconds()) }

// Duration converts back.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Status is the answer to "is it fine?".
type Status struct {
	Schema     int         `json:"schema"`
	Fine       bool        `json:"fine"`
	Summary    string      `json:"summary"` // one sentence; the first line of smartdns status
	Version    string      `json:"version"`
	Uptime     Seconds     `json:"uptime"`
	KillSwitch KillSwitch  `json:"kill_switch"`
	Conditions []Condition `json:"conditions"` // what is not fine, and what is worth knowing
	Listen     Listen      `json:"listen"`
	Tunnels    []Tunnel    `json:"tunnels"`
	Sides      []Side      `json:"sides"`
	Lists      []List      `json:"lists"`
	Sets       []Set       `json:"sets"`
	Counters   []Counter   `json:"counters"`
	Classified []string    `json:"classified"` // who is classified, who is left alone
}

// Condition is something that is not as it should be, or that one should know.
type Condition struct {
	Severity string    `json:"severity"` // "error" (not fine), "warning"
	What     string    `json:"what"`
	Fix      string    `json:"fix,omitempty"` // a command or a line of the file
	Since    time.Time `json:"since"`
}

// Listen says where queries are taken.
type Listen struct {
	Addrs    []netip.AddrPort `json:"addrs"`
	Clients  []netip.Prefix   `json:"clients"`
	HostAsks bool             `json:"host_asks"`         // this host's own resolver asks us
	HostBy   string           `json:"host_by,omitempty"` // the program that says whom it asks, where one shows
	DoT      []netip.AddrPort `json:"dot,omitempty"`
	DoH      []netip.AddrPort `json:"doh,omitempty"`
	TLS      uint64           `json:"tls"`            // queries, as those that follow
	Asks     []ListenerSide   `json:"asks,omitempty"` // listeners that ask one side
	HTTPS    uint64           `json:"https"`
	UDP      uint64           `json:"udp"`
	TCP      uint64           `json:"tcp"`
	Refused  uint64           `json:"refused"`

	Certificate *Certificate `json:"certificate,omitempty"` // that DoT and DoH show
}

// ListenerSide is a listener that asks one side whatever the lines say.
type ListenerSide struct {
	Addr netip.AddrPort `json:"addr"`
	Side string         `json:"side"`
}

// Certificate is what TLS listeners show.
type Certificate struct {
	Pin   string    `json:"pin"` // SHA-256 of its public key, in base64 (RFC 7858 section 4.2)
	Own   bool      `json:"own"` // signed by itself
	File  string    `json:"file"`
	Names []string  `json:"names"`
	Until time.Time `json:"until"`
}

// Tunnel is one tunnel's state.
type Tunnel struct {
	Path      string     `json:"path"`
	State     string     `json:"state"` // connecting, up, stale, down, blocked, insecure
	Device    string     `json:"device"`
	Endpoint  string     `json:"endpoint"`
	Peer      string     `json:"peer"`      // the public key's first characters
	Handshake *time.Time `json:"handshake"` // the last one; null: none yet
	Traffic
	Mark  string `json:"mark"`
	Table int    `json:"table"`
	Probe *Probe `json:"probe,omitempty"` // the last through it; none yet
	Carrier
}

// Probe is a question through a tunnel that only its far end can have answered.
type Probe struct {
	At      time.Time `json:"at"`
	Latency Seconds   `json:"latency"` // of the last that was answered; 0: none was
	Error   string    `json:"error,omitempty"`
}

// Carrier says who carries the flows of a tunnel.
type Carrier struct {
	WhenDown  string `json:"when_down"`          // while it is down: block, direct, or another tunnel
	CarriedBy string `json:"carried_by"`         // now: the tunnel itself, its stand-in, direct, or "": nobody
	StandIn   string `json:"stand_in,omitempty"` // why that is another tunnel: "wg0 is down, wg1 stands in"
}

// Traffic is what goes through a tunnel.
type Traffic struct {
	Received int64 `json:"received"` // bytes
	Sent     int64 `json:"sent"`
	MTU      MTU   `json:"mtu"`
}

// MTU says how large packets in a tunnel may be, in bytes.
type MTU struct {
	Link int    `json:"link"`           // of its interface
	Fits int    `json:"fits,omitempty"` // larger ones do not arrive; 0: all do
	From string `json:"from"`           // who says so: "file", "route" or "measured"
}

// Side is one upstream group.
type Side struct {
	Name    string   `json:"name"`
	Via     string   `json:"via"`
	Servers []Server `json:"servers"`
}

// Server is one upstream server.
type Server struct {
	Server    string       `json:"server"`
	Proto     string       `json:"proto"`           // "udp", "tcp", "tls", "https", "h3" or "quic"
	Addrs     []netip.Addr `json:"addrs,omitempty"` // where it is, as far as that is known; the one in use first
	Up        bool         `json:"up"`
	Latency   Seconds      `json:"latency"` // moving average
	Queries   uint64       `json:"queries"`
	Failures  uint64       `json:"failures"`
	Suspect   uint64       `json:"suspect"` // packets that looked like spoofing
	LastError string       `json:"last_error,omitempty"`
}

// List is one data list.
type List struct {
	Name         string    `json:"name"`
	Source       string    `json:"source"` // its file, or "embedded"
	Kind         string    `json:"kind"`
	Format       string    `json:"format,omitempty"`  // how its file is written
	Packing      string    `json:"packing,omitempty"` // how its file is compressed
	Entries      int       `json:"entries"`
	Exceptions   int       `json:"exceptions,omitempty"`    // of the entries, those that say what is not in the list
	Dropped      int       `json:"dropped"`                 // lines passed over
	FirstDropped string    `json:"first_dropped,omitempty"` // the first of them, and why
	Date         string    `json:"date,omitempty"`          // the day of its data: "2026-08-02"
	Loaded       time.Time `json:"loaded"`
	Error        string    `json:"error,omitempty"`
	Fetched      *Fetched  `json:"fetched,omitempty"` // of one that is fetched
}

// Set is one nftables set of ours.
type Set struct {
	Name     string `json:"name"`
	Path     string `json:"path,omitempty"` // of a dynamic set
	Elements int    `json:"elements"`
	Size     uint32 `json:"size,omitempty"`
}

// Counter is a number that only grows.
type Counter struct {
	Group string `json:"group"` // what it is about: "queries", "auto", "poison", "marks", "flows", "packets"
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Decision is one query's whole story.
type Decision struct {
	Schema     int       `json:"schema"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Client     string    `json:"client,omitempty"`
	RCode      string    `json:"rcode"`
	EDE        []EDE     `json:"ede,omitempty"`
	Took       Seconds   `json:"took"`
	Cached     string    `json:"cached"`               // "", "fresh", "negative", "stale", "failure"; "sealed": clients get it from the fast lane
	Age        Seconds   `json:"age,omitempty"`        // of a cached answer
	Prefetched bool      `json:"prefetched,omitempty"` // it was fetched before anybody had to wait for it
	Steps      []Step    `json:"steps"`                // the asked name, and each CNAME target that was resolved by its own rule
	Records    []Record  `json:"records,omitempty"`    // of the answer, without those that are an address and nothing else
	Answers    []Address `json:"answers,omitempty"`    // its addresses, and those taken out of it
	Notes      []string  `json:"notes,omitempty"`      // what was odd: held, stripped
}

// Step is how one name was decided.
type Step struct {
	Name  string  `json:"name"`
	Rule  Rule    `json:"rule"`
	Auto  *Auto   `json:"auto,omitempty"` // how `ask = "auto"` decided
	Asked []Asked `json:"asked,omitempty"`
}

// Auto is how a name in no list was decided.
type Auto struct {
	Mode    string   `json:"mode"`
	Region  string   `json:"region,omitempty"` // "home", "abroad"; "" when nothing said
	Why     string   `json:"why,omitempty"`
	Learned *Seconds `json:"learned,omitempty"` // the age of the verdict, when it is from before this query
	Pinned  bool     `json:"pinned,omitempty"`  // a person said so
}

// Record is a record of the answer.
type Record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"` // as a zone file has it
}

// EDE is an extended error (RFC 8914).
type EDE struct {
	Code int    `json:"code"`
	Text string `json:"text,omitempty"`
}

// Rule is the line of the file that decided.
type Rule struct {
	Where   string `json:"where"`             // "names[3]", "addresses[1]"
	Text    string `json:"text"`              // its match, as the file has it
	At      string `json:"at"`                // "smartdns.toml:33"
	Matched string `json:"matched,omitempty"` // the part of the match, or of the list, that matched
	List    string `json:"list,omitempty"`    // "cn-domains:12": the list's line that matched
	// ListDate is the day of that list's data: "2026-08-02".
	ListDate string `json:"list_date,omitempty"`
	Do       string `json:"do"` // "ask domestic", "answer nxdomain", "via wg0"
}

// Asked is one upstream try, or what the cache had instead of one.
type Asked struct {
	Side       string  `json:"side"`
	Cached     string  `json:"cached,omitempty"` // nobody was asked: "fresh", "negative", "stale", "failure", "doubt"
	Age        Seconds `json:"age,omitempty"`    // of what the cache had
	Prefetched bool    `json:"prefetched,omitempty"`
	Server     string  `json:"server,omitempty"`
	Via        string  `json:"via"`
	Proto      string  `json:"proto,omitempty"`
	Took       Seconds `json:"took"`
	Note       string  `json:"note,omitempty"`
	Error      string  `json:"error,omitempty"`
}

// Address is one answered address and where its packets go.
type Address struct {
	Addr    netip.Addr `json:"addr"`
	TTL     uint32     `json:"ttl"`
	Hint    bool       `json:"hint,omitempty"` // from an HTTPS or SVCB record
	Region  string     `json:"region"`
	Because string     `json:"because"` // the list, line and prefix that say so
	Path    string     `json:"path"`
	Rule    Rule       `json:"rule"`
	Dropped string     `json:"dropped,omitempty"` // why it was taken out of the answer
	Mark    Mark       `json:"mark"`
	Kernel  *Kernel    `json:"kernel,omitempty"`
}

// Mark is what was put into the kernel for an address.
type Mark struct {
	Set    string  `json:"set,omitempty"` // "wg0_4"
	Life   Seconds `json:"life,omitempty"`
	Acked  bool    `json:"acked"`
	Reason string  `json:"reason,omitempty"` // why it was not marked
}

// Kernel is what the kernel itself says of an address.
type Kernel struct {
	Sets      []Element `json:"sets"`  // the sets that hold it
	Mark      string    `json:"mark"`  // the fwmark that our chains give a new flow to it
	Route     string    `json:"route"` // as `ip route get ADDR mark MARK` prints it
	Table     int       `json:"table,omitempty"`
	Dev       string    `json:"dev,omitempty"` // "nowhere" where Route says why
	Via       string    `json:"via,omitempty"` // the next hop
	Source    string    `json:"source,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	Handshake Seconds   `json:"handshake,omitempty"` // its age
	StandIn   string    `json:"stand_in,omitempty"`  // why another tunnel carries it now: "wg0 is down, wg1 stands in"
	Flows     []Flow    `json:"flows,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Element is an address's membership of a set.
type Element struct {
	Set       string  `json:"set"`
	Remaining Seconds `json:"remaining,omitempty"` // 0: it does not expire
}

// Flow is one open connection to an address.
type Flow struct {
	Proto string         `json:"proto"`
	From  netip.AddrPort `json:"from"`
	To    netip.AddrPort `json:"to"`
	Path  string         `json:"path"`
}

// Route is which way an address leaves, and why.
type Route struct {
	Schema  int       `json:"schema"`
	Asked   string    `json:"asked"`
	Client  string    `json:"client"` // who sends; "" = this host
	Answers []Address `json:"answers"`
	Names   *Decision `json:"decision,omitempty"` // when a name was asked about
}

// Marks lists marks.
type Marks struct {
	Schema    int        `json:"schema"`
	Marks     []MarkLine `json:"marks"`
	Conflicts []Conflict `json:"conflicts"`
}

// MarkLine is one mark in the kernel.
type MarkLine struct {
	Addr      netip.Addr `json:"addr"`
	Path      string     `json:"path"`
	Set       string     `json:"set"`
	Remaining Seconds    `json:"remaining"`
}

// Conflict is an address that answers tied to more than one path.
type Conflict struct {
	Addr  netip.Addr `json:"addr"`
	Paths []string   `json:"paths"`
	Used  string     `json:"used"`
}

// Steps are changes to the kernel, as commands.
type Steps struct {
	Schema int      `json:"schema"`
	Steps  []string `json:"steps"`
}

// Checked is what is wrong with a file, or was read with it.
type Checked struct {
	Schema   int      `json:"schema"`
	OK       bool     `json:"ok"`
	File     string   `json:"file"`
	Errors   []string `json:"errors"`
	Warnings []string `json:"warnings"`
	Notes    []string `json:"notes"`
}

// Config is a configuration.
type Config struct {
	Schema int            `json:"schema"`
	Config map[string]any `json:"config"` // the tables of the file
}

// Version says which program this is.
type Version struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Go      string `json:"go"`
}

// Done is the answer to a request that changes something.
type Done struct {
	Schema int    `json:"schema"`
	Text   string `json:"text"`
}

// Error is the body of every answer that is not 200.
type Error struct {
	Error string `json:"error"`
}
