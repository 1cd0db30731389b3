package api

import (
	"context"
	"net/http"
	"net/url"
)

// Verdicts lists what is known about names in no list.
type Verdicts struct {
	Schema   int       `json:"schema"`
	Verdicts []Verdict `json:"verdicts"` // by name
	Bytes    int       `json:"bytes"`    // of memory that they all take, about
	Limit    int       `json:"limit"`    // that they may take
}

// Verdict is what auto learned about a name, or a person said.
type Verdict struct {
	Name      string  `json:"name"`
	Region    string  `json:"region"` // "home", "abroad"
	Why       string  `json:"why"`
	Pinned    bool    `json:"pinned,omitempty"`
	Age       Seconds `json:"age"`       // since it was learned, last judged or pinned
	Idle      Seconds `json:"idle"`      // since it last decided
	Hits      uint64  `json:"hits"`      // how often it decided
	Confirmed uint32  `json:"confirmed"` // how many later judgements said the same: the confidence
}

// Verdicts lists the verdicts for suffix and all names under it; "" is all.
func (c *Client) Verdicts(ctx context.Context, suffix string) (Verdicts, error) {
	return do[Verdicts](ctx, c, http.MethodGet, "/v1/verdicts?"+url.Values{"suffix": {suffix}}.Encode(), nil)
}

// Pin makes region the verdict for name until it is forgotten.
func (c *Client) Pin(ctx context.Context, name, region string) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/verdicts/pin", url.Values{"name": {name}, "region": {region}})
}

// ForgetVerdict drops the verdict for name.
func (c *Client) ForgetVerdict(ctx context.Context, name string) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/verdicts/forget", url.Values{"name": {name}})
}

// ForgetVerdicts drops what was learned about suffix and all names under it;
// "." is every name.
func (c *Client) ForgetVerdicts(ctx context.Context, suffix string) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/verdicts/forget", url.Values{"suffix": {suffix}})
}
