package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Cache is what the cache holds and did since the start.
type Cache struct {
	Schema     int    `json:"schema"`
	Entries    int    `json:"entries"` // answers of the sides, stale ones among them
	Bytes      int    `json:"bytes"`   // of memory, with the index and the room not yet used
	Capacity   int    `json:"capacity"`
	Sealed     Sealed `json:"sealed"`
	Hits       uint64 `json:"hits"`
	Misses     uint64 `json:"misses"`
	Evicted    uint64 `json:"evicted"`    // that had to go before they expired
	Stale      uint64 `json:"stale"`      // answers given after they expired
	Prefetches uint64 `json:"prefetches"` // answers fetched before they expired
}

// Sealed is what the fast lane holds: whole answers, to be given as they are.
type Sealed struct {
	Entries  int    `json:"entries"`
	Bytes    int    `json:"bytes"`
	Capacity int    `json:"capacity"`
	Evicted  uint64 `json:"evicted"`
}

// CacheList is a page of the cache.
type CacheList struct {
	Schema  int          `json:"schema"`
	Entries []CacheEntry `json:"entries"`        // by name
	Next    string       `json:"next,omitempty"` // what asks for the next page; "": this is the last
}

// CacheEntry is one side's answer to one question.
type CacheEntry struct {
	Name  string  `json:"name"`
	Type  string  `json:"type"`
	Side  string  `json:"side"` // "" for one that is asked elsewhere now, "judge" for the question about a region
	Kind  string  `json:"kind"` // "fresh", "prefetched", "negative", "failure", "doubt", "stale"
	Age   Seconds `json:"age"`
	Left  Seconds `json:"left"` // until it expires; negative when it is stale
	Bytes int     `json:"bytes"`
	DO    bool    `json:"do,omitempty"` // asked for with signatures
	CD    bool    `json:"cd,omitempty"` // asked for unchecked
}

// MaxCachePage is how many entries one page has at most.
const MaxCachePage = 1000

// CacheSelection says which entries are meant: those that everything which is
// set allows.
type CacheSelection struct {
	Name   string // this name alone
	Suffix string // this name and all below it; "." is every name
	Side   string
	All    bool // every entry; nothing else is set then
}

func (s CacheSelection) form() url.Values {
	v := url.Values{"name": {s.Name}, "suffix": {s.Suffix}, "side": {s.Side}}
	if s.All {
		v.Set("all", "true")
	}
	return v
}

// Cache asks what the cache holds.
func (c *Client) Cache(ctx context.Context) (Cache, error) {
	return do[Cache](ctx, c, http.MethodGet, "/v1/cache", nil)
}

// CacheList lists at most limit entries, from the one on that the last page
// named as Next; "" is the first page.
func (c *Client) CacheList(ctx context.Context, s CacheSelection, after string, limit int) (CacheList, error) {
	v := s.form()
	v.Set("after", after)
	v.Set("limit", strconv.Itoa(limit))
	return do[CacheList](ctx, c, http.MethodGet, "/v1/cache/entries?"+v.Encode(), nil)
}

// FlushCache forgets what s says. A zero s is an error.
func (c *Client) FlushCache(ctx context.Context, s CacheSelection) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/cache/flush", s.form())
}
