package web

import (
	"context"
	"net/http"

	"smartdns/web/api"
)

// Lists is where answers about lists come from.
type Lists struct {
	List     func(ctx context.Context) (api.Lists, error)
	Update   func(ctx context.Context, names []string, force bool) (api.ListUpdates, error)
	Rollback func(ctx context.Context, name string) (api.Done, error)
	Diff     func(ctx context.Context, name string) (api.ListDiff, error)
}

func (l Lists) handle(mux *http.ServeMux) {
	mux.Handle("GET /v1/lists", serve(func(r *http.Request) (api.Lists, error) { return l.List(r.Context()) }))
	mux.Handle("POST /v1/lists/update", serve(func(r *http.Request) (api.ListUpdates, error) {
		if err := r.ParseForm(); err != nil {
			return api.ListUpdates{}, api.BadRequest(err.Error())
		}
		return l.Update(r.Context(), r.PostForm["name"], r.PostFormValue("force") == "true")
	}))
	mux.Handle("POST /v1/lists/rollback", serve(func(r *http.Request) (api.Done, error) {
		return l.Rollback(r.Context(), r.PostFormValue("name"))
	}))
	mux.Handle("GET /v1/lists/diff", serve(func(r *http.Request) (api.ListDiff, error) {
		return l.Diff(r.Context(), r.URL.Query().Get("name"))
	}))
}
