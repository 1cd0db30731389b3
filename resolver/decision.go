package resolver

import (
	"net/netip"
	"strings"
	"time"
	"unicode"

	"smartdns/resolver/policy"
	"smartdns/routing"
)

// Decision is one query's whole story. It never changes after Resolve
// returned it.
type Decision struct {
	Time      time.Time     `json:"time"`
	Took      time.Duration `json:"took_ns"`
	Asked     Asked         `json:"asked"`
	Steps     []Step        `json:"steps"`               // the asked name, and each CNAME target that got an answer of its own
	Addresses []Address     `json:"addresses,omitempty"` // of the answer, and those taken out of it
	Marked    Marked        `json:"marked"`
	RCode     string        `json:"rcode"`
	EDE       []EDE         `json:"ede,omitempty"` // why; the first goes to the client
	Notes     []string      `json:"notes,omitempty"`
	Sealed    time.Duration `json:"sealed_ns,omitempty"` // how long the fast lane may say the same; 0: not at all

	msg   message
	rcode uint16
}

// Asked is the question.
type Asked struct {
	Name      string     `json:"name"` // without the last dot
	Type      string     `json:"type"`
	Client    netip.Addr `json:"client,omitzero"`
	Transport string     `json:"transport,omitempty"`
}

// Step is how one name of the answer was decided.
type Step struct {
	Name   string  `json:"name"`
	Rule   Rule    `json:"rule"`
	Auto   *Story  `json:"auto,omitempty"`  // how auto chose
	Local  string  `json:"local,omitempty"` // why nobody was asked
	Lookup []Visit `json:"lookups,omitempty"`
	Side   string  `json:"side,omitempty"`   // whose answer was taken
	Cut    string  `json:"cut,omitempty"`    // the CNAME target where the answer was cut
	Cached string  `json:"cached,omitempty"` // "fresh", "negative", "stale" or "failure" when the answer was cached
	Aged
}

// Aged says more of an answer that was cached.
type Aged struct {
	Age        time.Duration `json:"age_ns,omitempty"`
	Prefetched bool          `json:"prefetched,omitempty"` // it was fetched before anybody asked for it
}

// Rule names a line of the config file, and what in it matched.
type Rule struct {
	Index   int          `json:"index"` // in decide.names or decide.addresses; -1 for none, RecordIndex for a record, policy.BypassIndex
	Text    string       `json:"text"`
	Pos     string       `json:"pos"`
	Via     routing.Path `json:"via,omitempty"`
	Matched string       `json:"matched,omitempty"` // the suffix, keyword, expression or prefix
	List    string       `json:"list,omitempty"`
	Line    int          `json:"line,omitempty"`
	Client  bool         `json:"client,omitempty"` // Index is one in decide.clients
}

// RecordIndex is the Index of a Rule that stands for a record of the user's:
// its Text is the record's name.
const RecordIndex = -2

// Story is how auto chose a side.
type Story struct {
	Mode    Mode          `json:"mode"`
	Region  string        `json:"region,omitempty"` // "home" or "abroad"; "" when nothing said
	Why     string        `json:"why,omitempty"`
	Learned bool          `json:"learned,omitempty"` // before this query
	Age     time.Duration `json:"age_ns,omitempty"`  // of what was learned
	Pinned  bool          `json:"pinned,omitempty"`  // by a person, not learned
}

// Visit is one question to one side.
type Visit struct {
	Side   string       `json:"side"`
	Path   routing.Path `json:"path"`
	Why    string       `json:"why"` // "answer", "judge", "second opinion", "fallback" or "a doubt, again"
	Cached string       `json:"cached,omitempty"`
	Aged
	Shared  bool          `json:"shared,omitempty"` // an equal question was in flight already
	RCode   string        `json:"rcode,omitempty"`
	Suspect string        `json:"suspect,omitempty"` // why the answer looks forged
	Err     string        `json:"error,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
	Tries   []Try         `json:"tries,omitempty"`
}

// Try is one attempt at one server.
type Try struct {
	Server string        `json:"server"`
	Proto  string        `json:"proto"`
	Took   time.Duration `json:"took_ns"`
	Note   string        `json:"note,omitempty"`
	Err    string        `json:"error,omitempty"`
}

// Address is one address of the answer.
type Address struct {
	Addr    netip.Addr   `json:"addr"`
	From    string       `json:"from"` // "A", "AAAA", "ipv4hint" or "ipv6hint"
	TTL     uint32       `json:"ttl"`
	Region  string       `json:"region"`
	Source  Source       `json:"source"`
	Path    routing.Path `json:"path,omitempty"`
	Rule    Rule         `json:"rule"`
	Marked  bool         `json:"marked"`
	Note    string       `json:"note,omitempty"`    // why it is not marked
	Dropped string       `json:"dropped,omitempty"` // why it was taken out of the answer
}

// Source is who says what an address is.
type Source struct {
	List   string       `json:"list,omitempty"`
	Line   int          `json:"line,omitempty"`
	Prefix netip.Prefix `json:"prefix,omitzero"`
}

// Marked is what the kernel said.
type Marked struct {
	Marks []Mark        `json:"marks,omitempty"`
	Until time.Time     `json:"until,omitzero"` // when the first of them ends
	Took  time.Duration `json:"took_ns,omitempty"`
	Err   string        `json:"error,omitempty"`
}

// Mark is one address tied to its path.
type Mark struct {
	Addr netip.Addr    `json:"addr"`
	Path routing.Path  `json:"path"`
	Life time.Duration `json:"life_ns"`
}

// EDE is an extended error (RFC 8914).
type EDE struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

// The extended errors that we send.
const (
	edeOther         = 0
	edeStale         = 3
	edeBlocked       = 15
	edeFiltered      = 17
	edeProhibited    = 18
	edeStaleNXDomain = 19
	edeUnreachable   = 22
	edeNetwork       = 23
	edePolicy        = 28 // unable to conform to policy: a path is down, or an address could not be marked
)

// Code returns the response code.
func (d *Decision) Code() uint16 { return d.rcode }

// OK reports whether the answer is NOERROR.
func (d *Decision) OK() bool { return d.rcode == 0 }

// explain adds an extended error. Its text goes into a packet and onto a
// terminal: joined errors become one line, and of bytes from outside none that
// is no text.
func (d *Decision) explain(code int, text string) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(strings.ReplaceAll(text, "\n", "; "), "?"))
	d.EDE = append(d.EDE, EDE{code, text})
}

func ruleOf(r policy.Rule) Rule {
	return Rule{Index: r.Index, Text: r.Text, Pos: r.Pos, Via: r.Via, Matched: r.By.Text, List: r.By.List, Line: r.By.Line}
}

func addressRuleOf(r policy.AddressRule) Rule {
	rule := Rule{Index: r.Index, Text: r.Text, Pos: r.Pos, Via: r.Via, List: r.List, Line: r.Line, Client: r.Client}
	if r.Named {
		rule.Matched = r.Prefix.String()
	}
	return rule
}
