package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"
)

// MaxMMDB is the largest database that is read, in octets. GeoLite2-City, the
// largest that anybody uses for this, has 60 MB.
const MaxMMDB = 128 << 20

// AddMMDB adds what a MaxMind database says about countries. Records may be
// those of the GeoIP2 and GeoLite2 country and city databases (country,
// iso_code), flat (country_code), or a bare string. An address whose record
// has no country is unknown to it.
//
// The database is read into memory, verified as a whole, and let go: only
// ranges at home and abroad are kept, so that the Prefix of a verdict is the
// largest one around the address of which the database says the same. The result
// is how many networks had a country.
func (b *Builder) AddMMDB(name string, r io.Reader) (networks int, err error) {
	if networks, err = b.addMMDB(name, r); err != nil {
		return 0, fmt.Errorf("reading MaxMind database %s: %w", name, err)
	}
	return networks, nil
}

func (b *Builder) addMMDB(name string, r io.Reader) (networks int, err error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxMMDB+1))
	if err != nil {
		return 0, err
	}
	if len(data) > MaxMMDB {
		return 0, fmt.Errorf("larger than %d MiB", MaxMMDB>>20)
	}
	db, err := openCountries(data)
	if err != nil {
		return 0, err
	}
	added := Builder{}
	c := cell{source: b.nextSource(), bits: wide}
	for n, err := range db.networks() {
		if err != nil {
			return 0, err
		}
		if n.country == "" {
			continue
		}
		c.region = Abroad
		if b.isHome(n.country) {
			c.region = Home
		}
		networks++
		added.extend(n.prefix, c)
		if n.prefix.Addr().Is6() && n.prefix.Bits() < 96 && n.prefix.Contains(netip.IPv6Unspecified()) {
			// The format keeps v4 at ::/96, which is inside this network.
			added.extend(netip.PrefixFrom(netip.IPv4Unspecified(), 0), c)
		}
	}
	if len(added.v4)+len(added.v6) == 0 {
		return 0, fmt.Errorf("a %q database holds no country codes (country.iso_code, country_code or a bare string)", db.reader.Metadata.DatabaseType)
	}
	b.merge(name, added)
	return networks, nil
}

// extend adds p, which follows what was added before, and joins it to the last
// entry where it goes on with the same.
func (b *Builder) extend(p netip.Prefix, c cell) {
	b.add(p, c, c.source)
	for _, entries := range []*[]entry{&b.v4, &b.v6} {
		if n := len(*entries); n > 1 {
			last, e := &(*entries)[n-2], (*entries)[n-1]
			if last.cell == e.cell && last.to != maxKey && last.to.next() == e.from {
				last.to = e.to
				*entries = (*entries)[:n-1]
			}
		}
	}
}

// countries reads ISO 3166 codes from a verified database.
type countries struct {
	reader *maxminddb.Reader
	known  *geoip2.Reader     // nil when geoip2 does not know the type of database
	codes  map[uintptr]string // by the record's place: a few hundred records serve all networks
}

func openCountries(data []byte) (*countries, error) {
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	if len(reader.Metadata.Description) == 0 {
		// Verify wants a description, which the format does not, and sing-geoip has none.
		reader.Metadata.Description = map[string]string{"en": reader.Metadata.DatabaseType}
	}
	if err := reader.Verify(); err != nil {
		return nil, err
	}
	if err := checkTree(data, reader.Metadata); err != nil {
		return nil, err
	}
	db := &countries{reader: reader, codes: make(map[uintptr]string)}
	known, err := geoip2.OpenBytes(data)
	if _, unknown := errors.AsType[geoip2.UnknownDatabaseTypeError](err); unknown {
		return db, nil
	} else if err != nil {
		return nil, err
	}
	if _, err := known.Country(netip.IPv4Unspecified()); err != nil {
		if _, wrong := errors.AsType[geoip2.InvalidMethodError](err); wrong {
			return nil, fmt.Errorf("a %q database holds no countries", reader.Metadata.DatabaseType)
		}
		return nil, err
	}
	db.known = known
	return db, nil
}

type network struct {
	prefix  netip.Prefix
	country string // "" when its record has none
}

// networks yields every network that has a record, sorted within each family.
// An error means that the database is corrupt.
func (db *countries) networks() iter.Seq2[network, error] {
	return func(yield func(network, error) bool) {
		for result := range db.reader.Networks() {
			if err := result.Err(); err != nil {
				yield(network{}, err)
				return
			}
			country, err := db.country(result)
			if !yield(network{result.Prefix(), country}, err) || err != nil {
				return
			}
		}
	}
}

func (db *countries) country(r maxminddb.Result) (string, error) {
	if code, ok := db.codes[r.Offset()]; ok {
		return code, nil
	}
	code, err := db.decode(r)
	if err != nil {
		return "", fmt.Errorf("record of %s: %w", r.Prefix(), err)
	}
	db.codes[r.Offset()] = code
	return code, nil
}

func (db *countries) decode(r maxminddb.Result) (string, error) {
	if db.known != nil {
		record, err := db.known.Country(r.Prefix().Addr())
		if err != nil {
			return "", err
		}
		return record.Country.ISOCode, nil
	}
	// The data is verified, so that an error here means another schema.
	var code string
	for _, path := range [][]any{{"country", "iso_code"}, {"country_code"}, {}} {
		if r.DecodePath(&code, path...) == nil && isCode(code) {
			return code, nil
		}
	}
	return "", nil
}

// isCode reports whether s looks like a country code, or like the name of an
// operator that some databases have in its place: letters, digits, hyphens.
func isCode(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// checkTree returns an error unless every node has a single parent: only then
// does a walk end in reasonable time. The root of v4 may have several, because
// ::ffff:0:0/96 and others are aliases of ::/96, and walks pass them over.
func checkTree(data []byte, m maxminddb.Metadata) error {
	v4 := uint(0)
	for depth := 0; m.IPVersion == 6 && depth < 96 && v4 < m.NodeCount; depth++ {
		v4, _ = children(data, v4, m.RecordSize)
	}
	seen := make([]bool, m.NodeCount)
	for n := range m.NodeCount {
		left, right := children(data, n, m.RecordSize)
		for _, child := range []uint{left, right} {
			if child >= m.NodeCount || child == v4 {
				continue
			}
			if seen[child] {
				return fmt.Errorf("the search tree shares node %d", child)
			}
			seen[child] = true
		}
	}
	return nil
}

// children returns the two records, of size bits each, of node n.
func children(data []byte, n, size uint) (left, right uint) {
	b := data[n*size/4:]
	left = uint(b[0])<<16 | uint(b[1])<<8 | uint(b[2])
	switch size {
	case 24:
		right = uint(b[3])<<16 | uint(b[4])<<8 | uint(b[5])
	case 28:
		left |= uint(b[3]>>4) << 24
		right = uint(b[3]&0xf)<<24 | uint(b[4])<<16 | uint(b[5])<<8 | uint(b[6])
	case 32:
		left = left<<8 | uint(b[3])
		right = uint(binary.BigEndian.Uint32(b[4:]))
	}
	return left, right
}
