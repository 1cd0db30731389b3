// Package web serves the API over HTTP.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"smartdns/web/api"
)

// Source is where the answers come from. Every function is called
// concurrently; an error's text is what the caller is told.
type Source struct {
	Status func(ctx context.Context) (api.Status, error)
	Query  func(ctx context.Context, name, qtype, from string) (api.Decision, error)
	Route  func(ctx context.Context, to, from string) (api.Route, error)
	Marks  func(ctx context.Context) (api.Marks, error)
	Forget func(ctx context.Context, addr string) (api.Done, error)
	Reload func(ctx context.Context) (api.Done, error)
	// Restart returns only when the program was not replaced.
	Restart func(ctx context.Context) error
	Portal  func(ctx context.Context, word string) (api.Portal, error) // how long, as "10m", or "off"

	Verdicts Verdicts
	Cache    Cache
	Lists    Lists
}

// maxBody is the longest form that we read.
const maxBody = 4 << 10

// Handler returns the API. It decides nothing about who may call it: that is
// the listener's business.
func Handler(s Source) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", serve(func(r *http.Request) (api.Status, error) { return s.Status(r.Context()) }))
	mux.Handle("POST /v1/query", serve(func(r *http.Request) (api.Decision, error) {
		return s.Query(r.Context(), r.PostFormValue("name"), r.PostFormValue("type"), r.PostFormValue("from"))
	}))
	mux.Handle("POST /v1/route", serve(func(r *http.Request) (api.Route, error) {
		return s.Route(r.Context(), r.PostFormValue("to"), r.PostFormValue("from"))
	}))
	mux.Handle("GET /v1/marks", serve(func(r *http.Request) (api.Marks, error) { return s.Marks(r.Context()) }))
	mux.Handle("POST /v1/marks/forget", serve(func(r *http.Request) (api.Done, error) { return s.Forget(r.Context(), r.PostFormValue("addr")) }))
	mux.Handle("POST /v1/reload", serve(func(r *http.Request) (api.Done, error) { return s.Reload(r.Context()) }))
	mux.Handle("POST /v1/restart", serve(func(r *http.Request) (api.Done, error) { return api.Done{}, s.Restart(r.Context()) }))
	mux.Handle("POST /v1/portal", serve(func(r *http.Request) (api.Portal, error) { return s.Portal(r.Context(), r.PostFormValue("for")) }))
	s.Verdicts.handle(mux)
	s.Cache.handle(mux)
	s.Lists.handle(mux)
	return mux
}

func serve[T any](f func(*http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Content-Type", "application/json")
		v, err := f(r)
		if err != nil {
			code := http.StatusUnprocessableEntity
			if _, ok := errors.AsType[api.BadRequest](err); ok {
				code = http.StatusBadRequest
			}
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(api.Error{Error: err.Error()})
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}
