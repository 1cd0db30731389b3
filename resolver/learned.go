package resolver

import (
	"sync"
	"time"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
)

// Verdict is what auto learned about a name.
type Verdict struct {
	Name   dnsname.FQDN
	Region geo.Region // Home or Abroad
	Why    string     // the evidence, for people
	Time   time.Time  // when it was learned; use does not renew it
	Hits   uint64     // how often it decided since
}

// verdictLife is how long a verdict decides before the name is judged again.
const verdictLife = 7 * 24 * time.Hour

// Learned keeps a verdict per name, at most a fixed number of them: the oldest
// goes first. It is safe for concurrent use.
type Learned struct {
	mu    sync.Mutex // guards the rest
	names map[dnsname.FQDN]*Verdict
	order []*Verdict // by age, with some that were forgotten or learned again
	limit int
}

// NewLearned returns a Learned that keeps at most limit names.
func NewLearned(limit int) *Learned {
	return &Learned{names: map[dnsname.FQDN]*Verdict{}, limit: max(limit, 1)}
}

// Use returns the verdict for name and counts a hit. A verdict older than 7
// days is not returned: its name is to be judged again.
func (l *Learned) Use(name dnsname.FQDN) (Verdict, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.names[name]
	if !ok || time.Since(v.Time) >= verdictLife {
		return Verdict{}, false
	}
	v.Hits++
	return *v, true
}

// Learn enters a verdict, as of now.
func (l *Learned) Learn(name dnsname.FQDN, region geo.Region, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.names[name]; ok && old.Region == region && time.Since(old.Time) < verdictLife {
		return // two queries judged it at once
	}
	v := &Verdict{Name: name, Region: region, Why: why, Time: time.Now()}
	l.names[name] = v
	l.order = append(l.order, v)
	for len(l.names) > l.limit || len(l.order) > 2*l.limit {
		oldest := l.order[0]
		l.order = l.order[1:]
		if l.names[oldest.Name] == oldest {
			delete(l.names, oldest.Name)
		}
	}
}

// Forget drops the verdict for name and reports whether there was one.
func (l *Learned) Forget(name dnsname.FQDN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.names[name]
	delete(l.names, name)
	return ok
}

// All returns every verdict, in no order.
func (l *Learned) All() []Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Verdict, 0, len(l.names))
	for _, v := range l.names {
		all = append(all, *v)
	}
	return all
}
