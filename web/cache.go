package web

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"smartdns/web/api"
)

// Cache is where answers about the cache come from.
type Cache struct {
	Stats func(ctx context.Context) (api.Cache, error)
	List  func(ctx context.Context, s api.CacheSelection, after string, limit int) (api.CacheList, error)
	Flush func(ctx context.Context, s api.CacheSelection) (api.Done, error)
}

func (c Cache) handle(mux *http.ServeMux) {
	mux.Handle("GET /v1/cache", serve(func(r *http.Request) (api.Cache, error) { return c.Stats(r.Context()) }))
	mux.Handle("GET /v1/cache/entries", serve(func(r *http.Request) (api.CacheList, error) {
		q := r.URL.Query()
		limit := api.MaxCachePage
		if text := q.Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > api.MaxCachePage {
				return api.CacheList{}, api.BadRequest(fmt.Sprintf("limit %q: from 1 to %d", text, api.MaxCachePage))
			}
			limit = n
		}
		s := api.CacheSelection{Name: q.Get("name"), Suffix: q.Get("suffix"), Side: q.Get("side")}
		return c.List(r.Context(), s, q.Get("after"), limit)
	}))
	mux.Handle("POST /v1/cache/flush", serve(func(r *http.Request) (api.Done, error) {
		s := api.CacheSelection{
			Name: r.PostFormValue("name"), Suffix: r.PostFormValue("suffix"), Side: r.PostFormValue("side"),
			All: r.PostFormValue("all") == "true",
		}
		some := s.Name != "" || s.Suffix != "" || s.Side != ""
		if some == s.All || s.Name != "" && s.Suffix != "" {
			return api.Done{}, api.BadRequest("say name or suffix, of one side or of every side, or all=true")
		}
		return c.Flush(r.Context(), s)
	}))
}
