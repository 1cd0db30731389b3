package list_test

import (
	"fmt"
	"strings"
	"testing"

	"smartdns/geo/list"
)

// A list of a few kilobytes cannot make the program compile gigabytes, nor try
// every name against them.
func TestExpressionsAreBounded(t *testing.T) {
	big := padding("domain:a.com") + "regexp:^[a-z]{1000}[0-9]{1000}$\n"
	var tally list.Tally
	for _, err := range tally.Watch(list.Names(strings.NewReader(big))) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if tally.Bad != 1 || tally.First == nil || !strings.Contains(tally.First.Error(), "states") {
		t.Errorf("%+v, first %v", tally, tally.First)
	}
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "regexp:^n%d[a-z]{500}$\n", i)
	}
	taken := 0
	for line, err := range list.Names(strings.NewReader(many.String())) {
		if err != nil {
			break // more than 2 % cannot be used
		}
		if line.Kind == list.Regexp {
			taken++
		}
	}
	if taken == 0 || taken > 600 {
		t.Errorf("%d expressions of 500 states and more were taken", taken)
	}
}
