package geo

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"smartdns/geo/list"
)

// Builder gathers what the sources of a Table know. Sources are added in the
// order of their precedence: the first that knows an address decides. A source
// that returns an error has added nothing.
type Builder struct {
	home     string
	v4, v6   []entry
	sources  []string
	complete bool // a source lists all that is at home
	claimed  map[netip.Prefix]bool
}

// NewBuilder returns a Builder of Tables whose home is the country with this
// ISO 3166 code.
func NewBuilder(home string) *Builder { return &Builder{home: home} }

// AddPrefixes adds a list of the prefixes of one country, as list.Prefixes and
// list.Delegated read it. A list of the home country is complete: an address
// that no source knows is abroad. Bad and Dropped lines are passed over. An
// error of lines, and a list without any prefix, is an error.
func (b *Builder) AddPrefixes(name, country string, lines iter.Seq2[list.Line, error]) error {
	atHome := b.isHome(country)
	c := cell{source: b.nextSource(), region: Abroad}
	if atHome {
		c.region = Home
	}
	added := Builder{}
	for l, err := range lines {
		if err != nil {
			return fmt.Errorf("reading list %s: %w", name, err)
		}
		if l.Kind != list.Prefix {
			continue
		}
		c.line = uint32(l.Number)
		c.bits = uint8(l.Prefix.Bits())
		added.add(l.Prefix, c, c.source)
	}
	if len(added.v4)+len(added.v6) == 0 {
		return fmt.Errorf("reading list %s: no prefixes in it", name)
	}
	b.merge(name, added)
	b.complete = b.complete || atHome
	return nil
}

// Claim is what the user himself says of the addresses of a prefix.
type Claim struct {
	Prefix netip.Prefix
	Region Region // Home or Abroad
	List   string // where it stands: the List of verdicts
	Line   int    // the line there, from 1
}

// AddClaim adds a claim. Claims come before every source, whenever that is
// added: of several that hold an address the one with the longest prefix, and of
// equal prefixes the one that was added first. Special addresses stay special.
func (b *Builder) AddClaim(c Claim) {
	p := c.Prefix.Masked()
	if b.claimed[p] {
		return
	}
	if b.claimed == nil {
		b.claimed = map[netip.Prefix]bool{}
	}
	b.claimed[p] = true
	at := slices.Index(b.sources, c.List)
	if at < 0 {
		at = len(b.sources)
		b.sources = append(b.sources, c.List)
	}
	b.add(p, cell{source: uint16(firstSource + at), region: c.Region, line: uint32(c.Line), bits: uint8(p.Bits())}, layerClaims)
}

// Table returns a Table of what was added so far.
func (b *Builder) Table() *Table {
	gap := cell{region: Unknown, bits: noPrefix}
	if b.complete {
		gap.region = Abroad
	}
	var special Builder
	special.addSpecial(privatePrefixes(), cell{source: sourcePrivate, region: Private})
	special.addSpecial(bogonPrefixes(), cell{source: sourceBogon, region: Unknown})
	return &Table{
		v4:      flatten(b.v4, special.v4, gap),
		v6:      flatten(b.v6, special.v6, gap),
		sources: append([]string{"", listPrivate, listBogon}, b.sources...),
	}
}

// Indexes into Table.sources. The special ones share layer 0, claims are the
// next one, and every source is the layer of its index.
const (
	sourcePrivate = 1
	sourceBogon   = 2
	firstSource   = 3

	layerClaims = 1
)

func (b *Builder) nextSource() uint16 { return uint16(firstSource + len(b.sources)) }

func (b *Builder) isHome(country string) bool {
	return country != "" && strings.EqualFold(country, b.home)
}

func (b *Builder) addSpecial(prefixes []string, c cell) {
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		c.bits = uint8(p.Bits())
		b.add(p, c, 0)
	}
}

func (b *Builder) add(p netip.Prefix, c cell, layer uint16) {
	b.addKeys(keyOf(p.Masked().Addr()), p.Bits(), p.Addr().Is4(), c, layer)
}

// addKeys adds the prefix of n bits whose first key is from.
func (b *Builder) addKeys(from key, n int, v4 bool, c cell, layer uint16) {
	e := entry{layer: layer, cell: c, from: from, to: from.last(n)}
	if v4 {
		// The keys below a v4 address belong to it.
		e.to.hi |= 0xffff_ffff
		e.to.lo = maxKey.lo
		b.v4 = append(b.v4, e)
		return
	}
	b.v6 = append(b.v6, e)
}

// merge adds the entries of one more source.
func (b *Builder) merge(name string, source Builder) {
	b.v4, b.v6 = joined(b.v4, source.v4), joined(b.v6, source.v6)
	b.sources = append(b.sources, name)
}

// joined returns a and then b, without a copy where one of them is empty.
func joined(a, b []entry) []entry {
	if len(a) == 0 {
		return b
	}
	return append(a, b...)
}
