package resolver

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
)

// Cached is one entry of the cache, for people.
type Cached struct {
	Name   dnsname.FQDN
	Type   string
	Side   string // whose answer it is, "judge" for one that only says where a name is
	Kind   string // "fresh", "prefetched", "negative", "failure", "doubt" or "stale"
	Age    time.Duration
	Left   time.Duration // until it expires; negative when it is stale
	Bytes  int           // of key and body
	DO, CD bool
}

// Selection says which entries of the cache are meant: the zero value, all of
// them; else those that every field which is set allows.
type Selection struct {
	Name  dnsname.FQDN // this name alone
	Under dnsname.FQDN // this name and all below it
	Side  string
}

func (s Selection) has(name dnsname.FQDN, side string) bool {
	return (s.Name == "" || s.Name == name) && (s.Under == "" || s.Under.Contains(name)) && (s.Side == "" || s.Side == side)
}

// sideJudge is what the list calls the questions about a name's region.
const sideJudge = "judge"

// sideNames is the names of sides by what the cache calls them.
type sideNames map[string]string

func (p *Policy) names() sideNames {
	all := sideNames{p.judgeID: sideJudge}
	for name, id := range p.ids {
		all[id] = name
	}
	return all
}

// of returns the side whose answer k is for, "" when there is none any more.
// Behind the side's own part stands the client subnet, if any.
func (s sideNames) of(k cache.Key) string { return s[k.Side[:min(len(k.Side), sideIDLen)]] }

// SaveCache writes what is worth keeping over a restart.
func (r *Resolver) SaveCache(w io.Writer) error { return r.cache.Save(w) }

// LoadCache reads what SaveCache wrote, but for the answers of sides that are
// asked elsewhere now. They live for as long as the policy keeps answers. See
// cache.Load for the rest.
func (r *Resolver) LoadCache(in io.Reader) (n int, behind bool, err error) {
	p := r.policy.Load()
	sides := p.names()
	n, behind, err = r.cache.Load(in, func(key []byte) bool {
		k, ok := cache.ParseKey(key)
		return ok && sides.of(k) != ""
	})
	p.Keep.relife(r.cache, Keep{})
	return n, behind, err
}

// CacheChanges returns a number that is another one whenever SaveCache would
// write something else, but for the time that passed.
func (r *Resolver) CacheChanges() uint64 { return r.cache.Changes() }

// CacheSides returns what a Selection may have as its Side, in order.
func (r *Resolver) CacheSides() []string {
	return slices.Sorted(maps.Values(r.policy.Load().names()))
}

var errCursor = errors.New("this is not where a page of the list ended")

// ListCache returns at most limit entries of those selected, ordered by name,
// that come behind the one where the last page ended; after is "" for the first
// page. next is where this page ended, "" when it is the last one. Entries of a
// side that is not in the policy any more have no Side.
func (r *Resolver) ListCache(s Selection, after string, limit int) (page []Cached, next string, err error) {
	cursor, err := hex.DecodeString(after)
	if err != nil {
		return nil, "", errCursor
	}
	sides, end := r.policy.Load().names(), listed{}
	if n := len(cursor); n > 0 {
		end.key, end.failed = cursor[:n-1], cursor[n-1] != 0
	}
	if k, ok := cache.ParseKey(end.key); ok {
		end.Name, _, err = dnsname.FromWire(k.Name)
	}
	if err != nil || after != "" && end.Name == "" {
		return nil, "", errCursor
	}
	var all []listed
	r.cache.Drop(func(key []byte, e cache.Entry) bool {
		k, ok := cache.ParseKey(key)
		name, _, err := dnsname.FromWire(k.Name)
		if !ok || err != nil || !s.has(name, sides.of(k)) {
			return false
		}
		l := listed{Cached: Cached{Name: name}, key: key, failed: e.Kind == cache.Failure}
		if after != "" && l.compare(end) <= 0 {
			return false
		}
		l.fill(k, e, sides.of(k))
		if all = append(all, l); len(all) >= 4*(limit+1) {
			all = first(all, limit+1)
		}
		return false
	})
	all = first(all, limit+1)
	if len(all) > limit {
		all = all[:limit]
		next = hex.EncodeToString(all[limit-1].cursor())
	}
	for _, l := range all {
		page = append(page, l.Cached)
	}
	return page, next, nil
}

// AskedNames returns the names that the cache holds answers for, each with how
// often the one that was asked for most often was: 0, 1, or 2 for more.
func (r *Resolver) AskedNames() map[dnsname.FQDN]int {
	all := map[dnsname.FQDN]int{}
	r.cache.Drop(func(key []byte, e cache.Entry) bool {
		if k, ok := cache.ParseKey(key); ok {
			if name, _, err := dnsname.FromWire(k.Name); err == nil {
				all[name] = max(all[name], e.Asked)
			}
		}
		return false
	})
	return all
}

// listed is an entry with what it is ordered by.
type listed struct {
	Cached
	key    []byte
	failed bool
}

// fill makes l one that may be kept.
func (l *listed) fill(k cache.Key, e cache.Entry, side string) {
	kind := e.Kind.String()
	switch {
	case e.Left <= 0:
		kind = kindStale
	case e.Prefetched && e.Kind == cache.Positive:
		kind = "prefetched"
	}
	l.Bytes = len(l.key) + len(e.Body)
	l.key = slices.Clone(l.key)
	l.Type, l.Side, l.Kind, l.Age, l.Left, l.DO, l.CD = typeName(k.Type), side, kind, e.Age, e.Left, k.DO, k.CD
}

// cursor is what says where a page ended.
func (l listed) cursor() []byte { return append(slices.Clone(l.key), l.last()) }

// last is 1 for the failure of a key, which stands behind its last answer.
func (l listed) last() byte {
	if l.failed {
		return 1
	}
	return 0
}

// compare orders by name, then by the rest of the key.
func (l listed) compare(o listed) int {
	return cmp.Or(cmp.Compare(l.Name, o.Name), slices.Compare(l.key, o.key), cmp.Compare(l.last(), o.last()))
}

// first returns the first n of all in their order.
func first(all []listed, n int) []listed {
	slices.SortStableFunc(all, listed.compare)
	return all[:min(n, len(all))]
}

// FlushCache forgets the entries selected, sealed answers among them, and
// returns how many there were.
func (r *Resolver) FlushCache(s Selection) int {
	if s == (Selection{}) {
		n := r.cache.Stats().Entries
		r.Flush()
		return n
	}
	sides := r.policy.Load().names()
	n := r.cache.Drop(func(key []byte, _ cache.Entry) bool {
		k, ok := cache.ParseKey(key)
		name, _, err := dnsname.FromWire(k.Name)
		return ok && err == nil && s.has(name, sides.of(k))
	})
	// A sealed answer may be made of several entries, or of another name's.
	r.sealed.Generation().Advance()
	return n
}
