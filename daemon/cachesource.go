package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/web"
	"smartdns/web/api"
)

// cacheSource answers the API about the cache.
func (e *engine) cacheSource() web.Cache {
	return web.Cache{Stats: e.cacheStats, List: e.listCache, Flush: e.flushCache}
}

func (e *engine) cacheStats(context.Context) (api.Cache, error) {
	s, sealed, c := e.resolver.Cache(), e.sealed.Stats(), e.resolver.Counters()
	return api.Cache{
		Schema: api.Schema, Entries: s.Entries, Bytes: s.Bytes, Capacity: s.Capacity,
		Sealed: api.Sealed{Entries: sealed.Entries, Bytes: sealed.Bytes, Capacity: sealed.Capacity, Evicted: sealed.Evicted},
		Hits:   s.Hits, Misses: s.Misses, Evicted: s.Evicted, Stale: c.Stale, Prefetches: c.Prefetches,
	}, nil
}

func (e *engine) listCache(_ context.Context, s api.CacheSelection, after string, limit int) (api.CacheList, error) {
	selection, err := e.selection(s)
	if err != nil {
		return api.CacheList{}, err
	}
	page, next, err := e.resolver.ListCache(selection, after, limit)
	if err != nil {
		return api.CacheList{}, api.BadRequest(err.Error())
	}
	out := api.CacheList{Schema: api.Schema, Entries: []api.CacheEntry{}, Next: next}
	for _, c := range page {
		out.Entries = append(out.Entries, api.CacheEntry{
			Name: c.Name.String(), Type: c.Type, Side: c.Side, Kind: c.Kind,
			Age: api.Since(c.Age), Left: api.Since(c.Left), Bytes: c.Bytes, DO: c.DO, CD: c.CD,
		})
	}
	return out, nil
}

func (e *engine) flushCache(_ context.Context, s api.CacheSelection) (api.Done, error) {
	selection, err := e.selection(s)
	if err != nil {
		return api.Done{}, err
	}
	n := e.resolver.FlushCache(selection)
	e.kept.save() // what was forgotten does not come back with a crash
	switch {
	case n == 0:
		return api.Done{Schema: api.Schema, Text: "there was nothing to forget"}, nil
	case n == 1:
		return api.Done{Schema: api.Schema, Text: "forgot 1 entry"}, nil
	}
	return api.Done{Schema: api.Schema, Text: fmt.Sprintf("forgot %d entries", n)}, nil
}

func (e *engine) selection(s api.CacheSelection) (resolver.Selection, error) {
	out := resolver.Selection{Side: s.Side}
	var err error
	if s.Name != "" {
		if out.Name, err = dnsname.Parse(s.Name); err != nil {
			return out, api.BadRequest(err.Error())
		}
	}
	if s.Suffix != "" {
		if out.Under, err = suffixOf(s.Suffix); err != nil {
			return out, err
		}
	}
	if sides := e.resolver.CacheSides(); s.Side != "" && !slices.Contains(sides, s.Side) {
		return out, api.BadRequest(fmt.Sprintf("no side %q (there are %s)", s.Side, strings.Join(sides, ", ")))
	}
	return out, nil
}
