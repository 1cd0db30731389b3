package daemon

import (
	"strings"
	"testing"

	"smartdns/web/api"
)

func TestSetsThatAreFullOrTooLargeAreConditions(t *testing.T) {
	sets := []api.Set{
		{Name: "home_4", Elements: 9000},
		{Name: "wg0_4", Path: "wg0", Elements: 100, Size: 100},
		{Name: "wg0_6", Path: "wg0", Elements: 80, Size: 100},
		{Name: "direct_4", Path: "direct", Elements: 3, Size: 64},
	}
	all := sizeConditions(sets, 64)
	if len(all) != 2 {
		t.Fatalf("conditions %v, want one of wg0_4 and one of wg0_6", all)
	}
	if c := all[0]; c.Severity != severityError || !strings.Contains(c.What, "wg0_4 is full with 100") || !strings.Contains(c.Fix, "size = 64") {
		t.Errorf("full: %+v", c)
	}
	if c := all[1]; c.Severity != severityWarning || !strings.Contains(c.What, "wg0_6 keeps room for 100 addresses instead of 64") {
		t.Errorf("too large: %+v", c)
	}
}
