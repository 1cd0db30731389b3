package routing_test

import (
	"testing"
	"time"

	"smartdns/routing"
)

func TestMarkLife(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		-time.Second:                       time.Hour,
		0:                                  time.Hour,
		50 * time.Minute:                   time.Hour,
		time.Hour:                          70 * time.Minute,
		24 * time.Hour:                     24*time.Hour + 10*time.Minute,
		time.Duration(1<<31) * time.Second: 24*time.Hour + 10*time.Minute,
	} {
		if got := routing.MarkLife(ttl); got != want {
			t.Errorf("MarkLife(%s) = %s, want %s", ttl, got, want)
		}
	}
}
