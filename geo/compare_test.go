package geo_test

import (
	"fmt"
	"slices"
	"testing"

	"smartdns/geo"
)

func TestCompare(t *testing.T) {
	a, b := geo.NewBuilder("CN"), geo.NewBuilder("CN")
	addText(t, a, "a", "CN", "1.2.0.0/16\n1.4.0.0/24\n2400:1::/32\n10.0.0.0/8\n")
	addText(t, b, "b", "CN", "1.2.0.0/17\n1.3.0.0/16\n2400:1::/32\n2400:2::/32\n")
	addText(t, b, "us", "US", "1.4.0.0/25\n")
	var got []string
	for d := range geo.Compare(a.Table(), b.Table()) {
		got = append(got, fmt.Sprintf("%s %s %s:%d %s %s:%d", d.Prefix, d.A.Region, d.A.List, d.A.Line, d.B.Region, d.B.List, d.B.Line))
	}
	want := []string{
		"1.2.128.0/17 home a:1 abroad :0",
		"1.3.0.0/16 abroad :0 home b:2",
		"1.4.0.0/24 home a:2 abroad us:1",
		"2400:2::/32 abroad :0 home b:4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	for d := range geo.Compare(a.Table(), geo.NewBuilder("CN").Table()) {
		t.Errorf("what nobody knows differs: %+v", d)
	}
	for d := range geo.Compare(a.Table(), b.Table()) {
		if d.Prefix.String() != "1.2.128.0/17" {
			t.Error("goes on after the first")
		}
		break
	}
}
