package configs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	maxStale    = 24 * time.Hour
	maxTTL      = 24 * time.Hour
	maxMinTTL   = time.Hour
	leastCache  = 4 << 20
	mostCache   = 1 << 30
	sizeByHost  = "auto"
	sizeExample = `"32MiB"`
)

// Cache is how answers are kept.
type Cache struct {
	Size           int           // bytes in all; 0: by the machine's memory
	Stale          time.Duration // for how long after its end an answer may stand for one that is not to be had
	Prefetch       bool
	MinTTL, MaxTTL time.Duration // whole seconds
	Save           bool          // over a restart
}

func (c converter) cache(raw rawCache) Cache {
	out := Cache{
		Size: c.size(raw.Size), Stale: c.duration(raw.Stale, maxStale, 0, maxStale), Prefetch: raw.Prefetch.or(true),
		MinTTL: c.ttl(raw.MinTTL, 0, 0, maxMinTTL), MaxTTL: c.ttl(raw.MaxTTL, maxTTL, time.Second, maxTTL), Save: raw.Save.or(true),
	}
	if out.MinTTL > out.MaxTTL {
		c.addf(raw.MinTTL.place, "%s is above max_ttl, which is %s", quote(raw.MinTTL.value), shortDuration(out.MaxTTL))
	}
	return out
}

// size reads a number of bytes with a binary unit.
func (c converter) size(raw rawString) int {
	if !raw.given() || raw.value == sizeByHost {
		return 0
	}
	digits := strings.TrimRight(raw.value, "KMGiBkmgb ")
	factor, known := map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[strings.TrimSpace(raw.value[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || !known {
		c.addf(raw.place, `%s is no size: write a whole number and KiB, MiB or GiB, e.g. %s, or "auto"`, quote(raw.value), sizeExample)
		return 0
	}
	bytes := int64(n) * factor
	if bytes < leastCache || bytes > mostCache {
		c.addf(raw.place, "%s: from 4MiB to 1GiB", quote(raw.value))
		return 0
	}
	return int(bytes)
}

// ttl reads a duration of whole seconds.
func (c converter) ttl(raw rawDuration, fallback, low, high time.Duration) time.Duration {
	d := c.duration(raw, fallback, low, high)
	if d%time.Second != 0 {
		c.addf(raw.place, "%s: TTLs are whole seconds", quote(raw.value))
	}
	return d
}

// duration reads a duration between two others.
func (c converter) duration(raw rawDuration, fallback, low, high time.Duration) time.Duration {
	if !raw.given() {
		return fallback
	}
	if raw.value != "" && isMadeOf(raw.value, ".") && strings.Trim(raw.value, "0123456789.") == "" {
		c.addf(raw.place, "%s", noUnit(quote(raw.value)))
		return fallback
	}
	d, err := time.ParseDuration(raw.value)
	if err != nil {
		c.addf(raw.place, `%s is no duration: write a number and its unit, e.g. "400ms"`, quote(raw.value))
		return fallback
	}
	if d < low || d > high {
		c.addf(raw.place, "%s: from %s to %s", quote(raw.value), shortDuration(low), shortDuration(high))
		return fallback
	}
	return d
}

// shortDuration is d without the units that say nothing: 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func cacheRows(c Cache) []row {
	size := sizeByHost
	switch {
	case c.Size == 0:
	case c.Size%(1<<20) == 0:
		size = fmt.Sprintf("%dMiB", c.Size>>20)
	default:
		size = fmt.Sprintf("%dKiB", c.Size>>10)
	}
	return []row{
		{"size", tomlString(size)},
		{"stale", tomlString(shortDuration(c.Stale))},
		{"prefetch", strconv.FormatBool(c.Prefetch)},
		{"min_ttl", tomlString(shortDuration(c.MinTTL))},
		{"max_ttl", tomlString(shortDuration(c.MaxTTL))},
		{"save", strconv.FormatBool(c.Save)},
	}
}
