package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/web"
	"smartdns/web/api"
)

const (
	verdictsName = "verdicts" // in the state directory: what auto learned
	pinsName     = "pins"     // beside it: what people said
	verdictBytes = 8 << 20    // of memory
	// maxVerdictFile is in bytes, more than verdictBytes can come to.
	maxVerdictFile = 32 << 20
	// verdictsEvery is how often new verdicts go to disk: flash memory wears out,
	// and what is lost with the power is learned again.
	verdictsEvery = 15 * time.Minute
)

// verdictStore keeps learned verdicts and pins over restarts.
type verdictStore struct {
	learned *resolver.Learned
	dir     string
	log     *slog.Logger

	mu      sync.Mutex // guards the rest, and the files
	saved   uint64     // the edits that are on disk
	trouble []api.Condition
	unsaved string // why they are not; "" when they are
}

// openVerdicts reads what is kept in dir. What cannot be read is a condition
// (which a start logs), for it is only a memory.
func openVerdicts(dir string, log *slog.Logger) *verdictStore {
	s := &verdictStore{learned: resolver.NewLearned(int(min(verdictBytes, memoryLimit()/16))), dir: dir, log: log}
	for _, f := range s.files() {
		if err := f.load(s.learned.Read); err != nil {
			s.trouble = append(s.trouble, api.Condition{
				Severity: severityWarning, What: err.Error(), Since: time.Now(),
				Fix: "nothing needs to be done: names are judged again; pin again what you had pinned, and remove the file",
			})
		}
	}
	s.saved = s.learned.Edits()
	return s
}

// files are those of the pins and of what was learned. Pins are apart: what
// people said is not lost with what is written all the time.
func (s *verdictStore) files() [2]stateFile {
	return [2]stateFile{
		{filepath.Join(s.dir, pinsName), "smartdns pins 1", maxVerdictFile},
		{filepath.Join(s.dir, verdictsName), "smartdns verdicts 1", maxVerdictFile},
	}
}

// run saves what is new every now and then, and all of it when ctx ends.
func (s *verdictStore) run(ctx context.Context) {
	tick := time.NewTicker(verdictsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.save(true)
			return
		case <-tick.C:
			s.save(false)
		}
	}
}

// save writes both files if something changed, or anyway, for the sake of hits.
func (s *verdictStore) save(anyway bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edits := s.learned.Edits()
	if edits == s.saved && !anyway {
		return
	}
	var errs []error
	for i, f := range s.files() {
		errs = append(errs, f.save(func(w io.Writer) error { return s.learned.Write(w, i == 0) }))
	}
	err := errors.Join(errs...)
	switch {
	case err == nil:
		s.saved, s.unsaved = edits, ""
	case s.unsaved != err.Error():
		s.unsaved = err.Error()
		s.log.Warn("verdicts are not kept: " + s.unsaved)
	}
}

func (s *verdictStore) conditions() []api.Condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.trouble)
	if s.unsaved != "" {
		all = append(all, api.Condition{
			Severity: severityWarning, Since: time.Now(), What: "verdicts would be forgotten by a restart: " + oneLine(s.unsaved),
			Fix: "make room or rights in " + s.dir,
		})
	}
	return all
}

// verdictSource answers the API about verdicts.
func (e *engine) verdictSource() web.Verdicts {
	return web.Verdicts{List: e.listVerdicts, Pin: e.pinVerdict, Forget: e.forgetVerdicts}
}

func (e *engine) listVerdicts(_ context.Context, suffix string) (api.Verdicts, error) {
	under, err := suffixOf(suffix)
	if err != nil {
		return api.Verdicts{}, err
	}
	out := api.Verdicts{Schema: api.Schema, Verdicts: []api.Verdict{}}
	out.Bytes, out.Limit = e.verdicts.learned.Bytes()
	for _, v := range e.verdicts.learned.All() {
		if under.Contains(v.Name) {
			out.Verdicts = append(out.Verdicts, api.Verdict{
				Name: v.Name.String(), Region: v.Region.String(), Why: v.Why, Pinned: v.Pinned,
				Age: api.Since(v.Age), Idle: api.Since(v.Idle), Hits: v.Hits, Confirmed: v.Confirmed,
			})
		}
	}
	slices.SortFunc(out.Verdicts, func(a, b api.Verdict) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (e *engine) pinVerdict(_ context.Context, name, region string) (api.Done, error) {
	n, err := dnsname.Parse(name)
	if err != nil {
		return api.Done{}, api.BadRequest(err.Error())
	}
	var r geo.Region
	switch region {
	case geo.Home.String():
		r = geo.Home
	case geo.Abroad.String():
		r = geo.Abroad
	default:
		return api.Done{}, api.BadRequest(fmt.Sprintf("%q is no verdict: write home or abroad", region))
	}
	if err := e.verdicts.learned.Pin(n, r); err != nil {
		return api.Done{}, err
	}
	e.sealed.Generation().Advance()
	e.verdicts.save(false)
	text := fmt.Sprintf("%s is %s until you forget it", n.String(), region)
	if why := e.overrules(n); why != "" {
		text += ", but " + why
	}
	return api.Done{Schema: api.Schema, Text: text}, nil
}

// overrules says why a verdict for name decides nothing now, "" when it does.
func (e *engine) overrules(name dnsname.FQDN) string {
	p := e.shown.Load().policy
	rule, ok := p.Names.Match(name)
	_, _, recorded := p.Local.Records.Match(name)
	switch {
	case recorded:
		return "it has records of its own"
	case ok && rule.Action != policy.AskAuto:
		return fmt.Sprintf("names[%d] (%s) decides about this name, not auto", rule.Index, rule.Pos)
	case p.Auto.Mode == resolver.ForeignOnly:
		return `auto = "foreign-only" asks no verdict`
	}
	return ""
}

func (e *engine) forgetVerdicts(_ context.Context, name, suffix string) (api.Done, error) {
	defer e.verdicts.save(false)
	defer e.sealed.Generation().Advance()
	if name != "" {
		n, err := dnsname.Parse(name)
		if err != nil {
			return api.Done{}, api.BadRequest(err.Error())
		}
		if !e.verdicts.learned.Forget(n) {
			return api.Done{}, fmt.Errorf("there is no verdict for %s", n.String())
		}
		return api.Done{Schema: api.Schema, Text: "forgot the verdict for " + n.String()}, nil
	}
	under, err := suffixOf(suffix)
	if err != nil {
		return api.Done{}, err
	}
	gone, pinned := e.verdicts.learned.ForgetUnder(under)
	text := fmt.Sprintf("forgot %d learned verdicts", gone)
	if gone == 1 {
		text = "forgot 1 learned verdict"
	}
	if pinned > 0 {
		text += fmt.Sprintf("; %d pinned stay: forget each by its name", pinned)
	}
	return api.Done{Schema: api.Schema, Text: text}, nil
}

// suffixOf reads a suffix; "" and "." are every name.
func suffixOf(s string) (dnsname.FQDN, error) {
	if s == "" {
		return dnsname.Root, nil
	}
	n, err := dnsname.Parse(strings.TrimPrefix(s, "*."))
	if err != nil {
		return "", api.BadRequest(err.Error())
	}
	return n, nil
}
