package geo_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"smartdns/geo"
)

func benchmarkLookup(b *testing.B, table *geo.Table, within string) {
	r := rand.New(rand.NewPCG(1, 1))
	addrs := make([]netip.Addr, 1<<12)
	for i := range addrs {
		addrs[i] = randomAddr(r, prefix(within))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		table.Lookup(addrs[i&(len(addrs)-1)])
		i++
	}
}

func BenchmarkLookup(b *testing.B) {
	table := embeddedTable(b)
	for name, within := range map[string]string{
		"v4": "0.0.0.0/0", "v4 in 223.0.0.0/8": "223.0.0.0/8", "v6 in 2400::/12": "2400::/12", "v6 in 2000::/3": "2000::/3", "NAT64": "64:ff9b::/96",
	} {
		b.Run(name, func(b *testing.B) { benchmarkLookup(b, table, within) })
	}
}

// BenchmarkLookupLarge has as many ranges as a whole GeoLite2-Country has
// borders of one country.
func BenchmarkLookupLarge(b *testing.B) {
	r := rand.New(rand.NewPCG(2, 2))
	var text bytes.Buffer
	for range 100_000 {
		text.WriteString(netip.PrefixFrom(randomAddr(r, prefix("0.0.0.0/0")), 24).Masked().String() + "\n")
		text.WriteString(netip.PrefixFrom(randomAddr(r, prefix("2400::/12")), 48).Masked().String() + "\n")
	}
	builder := geo.NewBuilder("CN")
	addText(b, builder, "large", "CN", text.String())
	table := builder.Table()
	b.Run("v4", func(b *testing.B) { benchmarkLookup(b, table, "0.0.0.0/0") })
	b.Run("v6", func(b *testing.B) { benchmarkLookup(b, table, "2400::/12") })
}

func BenchmarkSpecial(b *testing.B) {
	a := addr("2400:3200::1")
	for b.Loop() {
		geo.Special(a)
	}
}

func BenchmarkBuildEmbedded(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		embeddedTable(b)
	}
}

func BenchmarkHome(b *testing.B) {
	table := embeddedTable(b)
	b.ReportAllocs()
	for b.Loop() {
		table.Home()
	}
}
