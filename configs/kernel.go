package configs

import (
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// defaultHold covers 99 % of forged answers, which come before the true
	// one.
	defaultHold = 400 * time.Millisecond
	maxHold     = 5 * time.Second
	defaultSize = 262144
	maxSetSize  = 1 << 24
)

func (c converter) poison(raw rawPoison) Poison {
	return Poison{Hold: c.duration(raw.Hold, defaultHold, 0, maxHold), Bogus: c.bogus(raw.Bogus), Probe: raw.Probe.or(true)}
}

func (c converter) bogus(raw rawStrings) []string {
	var all []string
	for _, item := range raw.items {
		name, isList := strings.CutPrefix(item.value, "list:")
		switch {
		case !isList:
			c.addf(item.place, `%s: bogus addresses stand in a list: write "list:NAME" and [list.NAME]`, quote(item.value))
		case slices.Contains(all, name):
			c.twice(item)
		default:
			c.listOfPrefixes(item.place, name, true)
			all = append(all, name)
		}
	}
	return all
}

func (c converter) marks(raw rawMarks) Marks {
	m := Marks{OnError: word(c, raw.OnError, OnErrorServfail, OnErrorAnswer), Size: defaultSize}
	if raw.Size.given() {
		if raw.Size.value < 1 || raw.Size.value > maxSetSize {
			c.addf(raw.Size.place, "%d: from 1 to %d elements per set", raw.Size.value, maxSetSize)
		}
		m.Size = uint32(min(max(raw.Size.value, 0), math.MaxUint32))
	}
	return m
}

func (c converter) routing(raw rawRouting) Routing {
	skip := c.interfaces(raw.Skip, func(item rawString) {
		switch {
		case slices.Contains(tableNames(c.raw.Tunnel), item.value):
			c.addf(item.place, "%s is a tunnel: without its [tunnel.%s] it is left alone", item.value, tomlKey(item.value))
		case slices.ContainsFunc(c.raw.Listen.LAN.items, func(l rawString) bool { return l.value == item.value }):
			c.addf(item.place, "%s is in [listen] lan: its traffic cannot be left alone", quote(item.value))
		}
	})
	return Routing{
		Mode: c.mode(), Skip: skip, Table: word(c, raw.Table, TableOwned, TableShared),
		Masquerade: word(c, raw.Masquerade, MasqueradeOff, MasqueradeIPv4, MasqueradeBoth), Flowtable: raw.Flowtable.or(false),
		Strict: raw.Strict.value,
	}
}
