package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Lists is every list of the file.
type Lists struct {
	Schema int    `json:"schema"`
	Lists  []List `json:"lists"`
}

// Fetched is how a list that is fetched stands.
type Fetched struct {
	URLs     []string      `json:"urls"` // its mirrors, without queries
	Via      string        `json:"via"`
	Every    Seconds       `json:"every"`
	From     string        `json:"from,omitempty"` // where the content in use came from; "": it was never fetched
	At       time.Time     `json:"at,omitzero"`    // when
	Size     int64         `json:"size,omitempty"` // bytes
	SHA256   string        `json:"sha256,omitempty"`
	Checked  time.Time     `json:"checked,omitzero"` // when a mirror last had nothing better
	Next     time.Time     `json:"next,omitzero"`
	Waiting  bool          `json:"waiting,omitempty"`  // until its tunnel is up
	Previous bool          `json:"previous,omitempty"` // there is a version to go back to
	Held     bool          `json:"held,omitempty"`     // somebody went back from the newest version
	Failure  *ListFailure  `json:"failure,omitempty"`
	Progress *ListProgress `json:"progress,omitempty"` // of an update under way
}

// ListFailure is why the last update of a list failed, or what is wrong with
// what is stored of it.
type ListFailure struct {
	Text    string    `json:"text,omitempty"`
	Gated   bool      `json:"gated,omitempty"` // force would take the content
	Times   int       `json:"times"`           // in a row
	At      time.Time `json:"at,omitzero"`
	Problem string    `json:"problem,omitempty"` // with what is stored
}

// ListProgress is how far a download has come.
type ListProgress struct {
	URL      string `json:"url"`
	Received int64  `json:"received"` // bytes
	Total    int64  `json:"total"`    // -1: nobody has said
}

// ListUpdates is what came of an update.
type ListUpdates struct {
	Schema  int          `json:"schema"`
	Updates []ListUpdate `json:"updates"`
}

// ListUpdate is what came of the update of one list.
type ListUpdate struct {
	Name    string `json:"name"`
	Changed bool   `json:"changed"`
	Entries int    `json:"entries"` // that it has now
	From    string `json:"from,omitempty"`
	Error   string `json:"error,omitempty"`
	Gated   bool   `json:"gated,omitempty"` // force would take the content
}

// MaxListDiff is how many entries of each kind a ListDiff has at most.
const MaxListDiff = 1000

// ListDiff is what a list has now and had not before, and the other way round.
type ListDiff struct {
	Schema   int         `json:"schema"`
	Name     string      `json:"name"`
	Now      time.Time   `json:"now,omitzero"` // when either was fetched
	Before   time.Time   `json:"before,omitzero"`
	Adds     int         `json:"adds"` // how many there are
	Removes  int         `json:"removes"`
	Added    []string    `json:"added"` // the first of them in order
	Removed  []string    `json:"removed"`
	Sides    []ListTurns `json:"sides"` // cached names that another line decides now, most asked for first
	Examined int         `json:"examined"`
}

// ListTurns is a name that a list's change decides otherwise.
type ListTurns struct {
	Name   string `json:"name"`
	Before string `json:"before"` // "ask domestic"
	Now    string `json:"now"`
	Often  bool   `json:"often"` // asked for again and again
}

// Lists asks how every list stands.
func (c *Client) Lists(ctx context.Context) (Lists, error) {
	return do[Lists](ctx, c, http.MethodGet, "/v1/lists", nil)
}

// UpdateLists fetches lists now, all without names, and waits until what they
// have then is in use. With force, contents are taken that are much smaller,
// larger or older than those in use.
func (c *Client) UpdateLists(ctx context.Context, names []string, force bool) (ListUpdates, error) {
	return do[ListUpdates](ctx, c, http.MethodPost, "/v1/lists/update", url.Values{"name": names, "force": {strconv.FormatBool(force)}})
}

// RollbackList makes the previous content of a list the one in use.
func (c *Client) RollbackList(ctx context.Context, name string) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/lists/rollback", url.Values{"name": {name}})
}

// DiffList compares a list with its previous content.
func (c *Client) DiffList(ctx context.Context, name string) (ListDiff, error) {
	return do[ListDiff](ctx, c, http.MethodGet, "/v1/lists/diff?"+url.Values{"name": {name}}.Encode(), nil)
}
