package geo_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"smartdns/geo"
	"smartdns/geo/geotest"
)

// The schemas in use, as records of one country.
var schemas = map[string]func(code string) mmdbtype.DataType{
	"GeoLite2-Country": func(code string) mmdbtype.DataType {
		if code == "" {
			return mmdbtype.Map{"registered_country": mmdbtype.Map{"iso_code": mmdbtype.String("AU")}}
		}
		return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
	},
	"GeoIP": func(code string) mmdbtype.DataType {
		return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
	},
	"country ipvAll": func(code string) mmdbtype.DataType {
		return mmdbtype.Map{"country_code": mmdbtype.String(code)}
	},
	"sing-geoip": func(code string) mmdbtype.DataType { return mmdbtype.String(strings.ToLower(code)) },
}

func TestMMDBSchemas(t *testing.T) {
	for databaseType, record := range schemas {
		t.Run(databaseType, func(t *testing.T) {
			data := geotest.Database(t, databaseType, map[string]mmdbtype.DataType{
				"1.0.1.0/24": record("CN"), "1.0.2.0/23": record("CN"), "1.0.4.0/22": record("AU"),
				"1.1.1.0/24": record(""), "8.8.8.0/24": record("GOOGLE"),
				"2400::/32": record("CN"), "2600::/16": record("US"), "10.0.0.0/8": record("CN"),
			})
			b := geo.NewBuilder("CN")
			n, err := b.AddMMDB("db", bytes.NewReader(data))
			if err != nil || n != 7 { // one network has no country
				t.Fatal(n, err)
			}
			table := b.Table()
			for s, want := range map[string]geo.Verdict{
				"1.0.1.1":          {Region: geo.Home, List: "db", Prefix: prefix("1.0.1.0/24")},
				"1.0.3.1":          {Region: geo.Home, List: "db", Prefix: prefix("1.0.2.0/23")},
				"::ffff:1.0.3.1":   {Region: geo.Home, List: "db", Prefix: prefix("1.0.2.0/23")},
				"1.0.4.1":          {Region: geo.Abroad, List: "db", Prefix: prefix("1.0.4.0/22")},
				"8.8.8.8":          {Region: geo.Abroad, List: "db", Prefix: prefix("8.8.8.0/24")},
				"1.1.1.1":          {},
				"9.9.9.9":          {},
				"2400::1":          {Region: geo.Home, List: "db", Prefix: prefix("2400::/32")},
				"2600:8::1":        {Region: geo.Abroad, List: "db", Prefix: prefix("2600::/16")},
				"2a00::1":          {},
				"10.1.1.1":         {Region: geo.Private, List: "private", Prefix: prefix("10.0.0.0/8")},
				"64:ff9b::1.0.1.1": {Region: geo.Home, List: "db", Prefix: prefix("1.0.1.0/24")},
			} {
				if got := table.Lookup(addr(s)); got != want {
					t.Errorf("Lookup(%s)\n got %+v\nwant %+v", s, got, want)
				}
			}
		})
	}
}

func TestMMDBBeforeEmbedded(t *testing.T) {
	record := schemas["country ipvAll"]
	b := geo.NewBuilder("CN")
	data := geotest.Database(t, "country ipvAll", map[string]mmdbtype.DataType{"119.28.0.0/16": record("HK"), "8.8.8.0/24": record("CN")})
	if _, err := b.AddMMDB("mine", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := b.AddEmbedded(); err != nil {
		t.Fatal(err)
	}
	table := b.Table()
	for s, want := range map[string]struct {
		region geo.Region
		list   string
	}{
		"119.28.1.1": {geo.Abroad, "mine"},
		"8.8.8.8":    {geo.Home, "mine"},
		"223.5.5.5":  {geo.Home, geo.Embedded},
		"9.9.9.9":    {geo.Abroad, ""},
	} {
		if v := table.Lookup(addr(s)); v.Region != want.region || v.List != want.list {
			t.Errorf("Lookup(%s) = %+v, want %v by %q", s, v, want.region, want.list)
		}
	}
}

// TestMMDBWithoutDescription has a database like sing-geoip's, which the
// library's own verification would refuse.
func TestMMDBWithoutDescription(t *testing.T) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "sing-geoip"})
	if err != nil {
		t.Fatal(err)
	}
	_, network, _ := net.ParseCIDR("1.0.1.0/24")
	if err := tree.Insert(network, mmdbtype.String("cn")); err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := tree.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	b := geo.NewBuilder("CN")
	if _, err := b.AddMMDB("sing", &data); err != nil {
		t.Fatal(err)
	}
	if v := b.Table().Lookup(addr("1.0.1.9")); v.Region != geo.Home {
		t.Errorf("got %+v", v)
	}
}

func TestMMDBOfWholeFamilies(t *testing.T) {
	data := geotest.Database(t, "country ipvAll", map[string]mmdbtype.DataType{"::/0": mmdbtype.Map{"country_code": mmdbtype.String("CN")}})
	b := geo.NewBuilder("CN")
	if _, err := b.AddMMDB("all", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	table := b.Table()
	for _, s := range []string{"8.8.8.8", "2600::1"} {
		if v := table.Lookup(addr(s)); v.Region != geo.Home {
			t.Errorf("Lookup(%s) = %+v, want home", s, v)
		}
	}
}

func TestMMDBRefused(t *testing.T) {
	asn := mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(4134)}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "invalid MaxMind DB file"},
		"text":              {[]byte("1.2.3.0/24\n"), "invalid MaxMind DB file"},
		"HTML":              {[]byte("<html></html>"), "invalid MaxMind DB file"},
		"a known other one": {geotest.Database(t, "GeoLite2-ASN", map[string]mmdbtype.DataType{"1.0.1.0/24": asn}), `a "GeoLite2-ASN" database holds no countries`},
		"an unknown one":    {geotest.Database(t, "my-asn", map[string]mmdbtype.DataType{"1.0.1.0/24": asn}), `a "my-asn" database holds no country codes`},
	} {
		_, err := geo.NewBuilder("CN").AddMMDB("db", bytes.NewReader(test.data))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "database db") {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// metaWriter is what mmdbtype writes to, without sharing of values.
type metaWriter struct{ *bytes.Buffer }

func (w metaWriter) WriteOrWritePointer(v mmdbtype.DataType) (int64, error) { return v.WriteTo(w) }

// TestMMDBWithSharedBranches has a tree of 100 nodes, each of whose branches
// both lead to the next: 2^100 leaves, and every check of single nodes passes.
func TestMMDBWithSharedBranches(t *testing.T) {
	const nodes = 100
	good := geotest.Database(t, "country ipvAll", map[string]mmdbtype.DataType{"2400::/127": mmdbtype.Map{"country_code": mmdbtype.String("CN")}})
	marker := bytes.LastIndex(good, []byte("\xab\xcd\xefMaxMind.com"))
	var data bytes.Buffer
	for i := range uint32(nodes) {
		next := i + 1 // the last one leads to "no record"
		for range 2 {
			data.Write([]byte{byte(next >> 16), byte(next >> 8), byte(next)})
		}
	}
	data.Write(make([]byte, 16))
	meta := mmdbtype.Map{
		"binary_format_major_version": mmdbtype.Uint16(2), "binary_format_minor_version": mmdbtype.Uint16(0),
		"build_epoch": mmdbtype.Uint64(1), "database_type": mmdbtype.String("country ipvAll"),
		"description": mmdbtype.Map{"en": mmdbtype.String("hostile")}, "ip_version": mmdbtype.Uint16(6),
		"languages": mmdbtype.Slice{}, "node_count": mmdbtype.Uint32(nodes), "record_size": mmdbtype.Uint16(24),
	}
	data.Write(good[marker : marker+len("\xab\xcd\xefMaxMind.com")])
	if _, err := meta.WriteTo(metaWriter{&data}); err != nil {
		t.Fatal(err)
	}
	_, err := geo.NewBuilder("CN").AddMMDB("hostile", &data)
	if err == nil || !strings.Contains(err.Error(), "shares node") {
		t.Errorf("error %v, want that the tree shares nodes", err)
	}
}

func TestMMDBFilesOfMaxMind(t *testing.T) {
	dir := sharedData(t, "mmdb")
	files, err := filepath.Glob(filepath.Join(dir, "*.mmdb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	good := map[string]bool{"GeoIP2-Country-Test.mmdb": true, "GeoLite2-City-Test.mmdb": true, "GeoLite2-Country-Test.mmdb": true}
	for _, file := range files {
		name := filepath.Base(file)
		b := geo.NewBuilder("CN")
		_, err := b.AddMMDB(name, bytes.NewReader(readFile(t, file)))
		t.Logf("%s: %v", name, err)
		if (err == nil) != good[name] {
			t.Errorf("%s: error %v, want one: %v", name, err, !good[name])
		}
		if !good[name] {
			if got := b.Table().Lookup(addr("111.235.160.1")); got != (geo.Verdict{}) {
				t.Errorf("%s: left %+v behind", name, got)
			}
		}
		if name != "GeoLite2-Country-Test.mmdb" {
			continue
		}
		table := b.Table()
		for _, s := range []string{"111.235.160.1", "2001:250::1", "2001:252::1", "2001:254::1", "2001:256::1"} {
			if v := table.Lookup(addr(s)); v.Region != geo.Home || v.List != name || !v.Prefix.Contains(addr(s)) {
				t.Errorf("Lookup(%s) = %+v, want home", s, v)
			}
		}
	}
}

// TestMMDBOfOwnList has the embedded prefixes written as databases.
func TestMMDBOfOwnList(t *testing.T) {
	v4, v6 := embeddedTable(t).Home()
	for _, name := range []string{"cn-GeoLite2-Country-schema.mmdb", "cn-flat-country_code-schema.mmdb"} {
		f, err := os.Open(sharedData(t, "own/"+name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := geo.NewBuilder("CN")
		if _, err := b.AddMMDB(name, f); err != nil {
			t.Fatal(err)
		}
		got4, got6 := b.Table().Home()
		if len(got4) != len(v4) || len(got6) != len(v6) {
			t.Errorf("%s: %d and %d prefixes, want %d and %d", name, len(got4), len(got6), len(v4), len(v6))
		}
	}
}

func TestMMDBWithFlippedBits(t *testing.T) {
	record := schemas["GeoLite2-Country"]
	r := rand.New(rand.NewPCG(5, 5))
	records := map[string]mmdbtype.DataType{"2400::/32": record("CN"), "2600::/16": record("US")}
	for range 40 {
		records[netip.PrefixFrom(randomAddr(r, prefix("0.0.0.0/1")), 20).Masked().String()] = record([]string{"CN", "US", ""}[r.IntN(3)])
	}
	good := geotest.Database(t, "GeoLite2-Country", records)
	survived := 0
	for range 1000 {
		bad := bytes.Clone(good)
		for range 1 + r.IntN(4) {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		b := geo.NewBuilder("CN")
		if _, err := b.AddMMDB("flipped", bytes.NewReader(bad)); err == nil {
			survived++
			b.Table().Lookup(addr("111.235.160.1"))
		}
	}
	for n := range good {
		if _, err := geo.NewBuilder("CN").AddMMDB("cut", bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("cut to %d of %d bytes: no error", n, len(good))
		}
	}
	t.Logf("%d of 1000 were still databases", survived)
}

func FuzzMMDB(f *testing.F) {
	for databaseType, record := range schemas {
		f.Add(geotest.Database(f, databaseType, map[string]mmdbtype.DataType{"1.0.1.0/24": record("CN"), "2400::/32": record("US")}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := geo.NewBuilder("CN")
		if _, err := b.AddMMDB("fuzz", bytes.NewReader(data)); err == nil {
			b.Table().Home()
		}
	})
}
