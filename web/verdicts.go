package web

import (
	"context"
	"net/http"

	"smartdns/web/api"
)

// Verdicts is where answers about learned verdicts come from.
type Verdicts struct {
	List   func(ctx context.Context, suffix string) (api.Verdicts, error)
	Pin    func(ctx context.Context, name, region string) (api.Done, error)
	Forget func(ctx context.Context, name, suffix string) (api.Done, error)
}

func (v Verdicts) handle(mux *http.ServeMux) {
	mux.Handle("GET /v1/verdicts", serve(func(r *http.Request) (api.Verdicts, error) {
		return v.List(r.Context(), r.URL.Query().Get("suffix"))
	}))
	mux.Handle("POST /v1/verdicts/pin", serve(func(r *http.Request) (api.Done, error) {
		return v.Pin(r.Context(), r.PostFormValue("name"), r.PostFormValue("region"))
	}))
	mux.Handle("POST /v1/verdicts/forget", serve(func(r *http.Request) (api.Done, error) {
		name, suffix := r.PostFormValue("name"), r.PostFormValue("suffix")
		if (name == "") == (suffix == "") {
			return api.Done{}, api.BadRequest("say one of name, and suffix (a single dot: every name)")
		}
		return v.Forget(r.Context(), name, suffix)
	}))
}
