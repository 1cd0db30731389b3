package list

import (
	"cmp"
	"fmt"
	"io"
	"iter"
)

// Format is how a list file is written, as the word that the config file uses.
type Format string

// The formats.
const (
	FormatDomains Format = "domains" // names, one a line, or rules as v2fly writes them
	FormatDnsmasq Format = "dnsmasq" // options of dnsmasq that name domains
	FormatHosts   Format = "hosts"   // addresses with their names, as in /etc/hosts
	FormatAdblock Format = "adblock" // rules of ad blockers
	FormatGFWList Format = "gfwlist" // rules of AutoProxy, in base64 or plain
	FormatGeosite Format = "geosite" // a file of v2ray with categories of names
	FormatRPZ     Format = "rpz"     // a response policy zone: names, and prefixes
	FormatCIDR    Format = "cidr"    // prefixes, ranges, addresses, or commands that hold them
	FormatAPNIC   Format = "apnic"   // statistics of a regional internet registry
	FormatGeoIP   Format = "geoip"   // a file of v2ray with categories of prefixes
	FormatMMDB    Format = "mmdb"    // a MaxMind database, which is not for this package
)

// Kind is what a list is good for.
type Kind string

// The kinds of list.
const (
	KindNames    Kind = "names"
	KindPrefixes Kind = "prefixes"
	KindMMDB     Kind = "mmdb" // countries of addresses
)

// Holds reports whether a list of this format can hold something of kind k.
func (f Format) Holds(k Kind) bool { return f.Kind() == k || f == FormatRPZ && k == KindPrefixes }

// Kind returns what a list of this format holds, or what most of it is.
func (f Format) Kind() Kind {
	switch f {
	case FormatCIDR, FormatAPNIC, FormatGeoIP:
		return KindPrefixes
	case FormatMMDB:
		return KindMMDB
	}
	return KindNames
}

// Options say what Parse takes of a file that holds more than one list, and
// where it finds the rest of one.
type Options struct {
	Kind    Kind   // FormatRPZ: what of it is wanted; "" is KindNames
	Code    string // FormatGeosite, FormatGeoIP: the category
	Country string // FormatAPNIC: whose prefixes, an ISO 3166 code in upper case
	// Home is the country whose top-level domains a list of names may have whole,
	// besides those of China: an ISO 3166 code in upper case, or "".
	Home string
	// Include opens a file that a list of FormatDomains includes; its name has no
	// slash and does not start with a dot. nil: such lines are Dropped.
	Include func(name string) (io.ReadCloser, error)
}

// Parse reads a list of any format but FormatMMDB.
func Parse(r io.Reader, f Format, o Options) iter.Seq2[Line, error] {
	n := &names{tlds: topLevel(o.Home), includes: includes{open: o.Include, count: new(int)}}
	switch f {
	case FormatDomains:
		return scan(r, n.parse)
	case FormatDnsmasq:
		return scan(r, n.parseDnsmasq)
	case FormatHosts:
		return scan(r, n.parseHosts)
	case FormatAdblock:
		return scan(r, n.parseAdblock)
	case FormatGFWList:
		return n.gfwlist(r)
	case FormatRPZ:
		return n.rpz(r, cmp.Or(o.Kind, KindNames))
	case FormatGeosite:
		return n.geosite(r, o.Code)
	case FormatCIDR:
		return Prefixes(r)
	case FormatAPNIC:
		return Delegated(r, o.Country)
	case FormatGeoIP:
		return GeoIP(r, o.Code)
	}
	return func(yield func(Line, error) bool) {
		yield(Line{}, &FileError{Reason: fmt.Sprintf("%q is no format that has lines", f)})
	}
}
