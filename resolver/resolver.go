// Package resolver answers questions: one way from a query to its answer, on
// which every address is judged and tied to its path before anybody gets it.
package resolver

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"smartdns/geo"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/upstream"
	"smartdns/resolver/work"
	"smartdns/routing"
)

// The sides that have a role. Users may add others, which only rules ask.
const (
	Domestic = "domestic"
	Foreign  = "foreign"
)

// Classifier says what an address is.
type Classifier interface {
	// Classify returns the verdict for a. It is safe for concurrent use and
	// never blocks.
	Classify(a netip.Addr) geo.Verdict
}

// Marker ties addresses to paths in the kernel.
type Marker interface {
	// Mark returns once the kernel has acknowledged every mark, and until
	// when the shortest-lived of them lasts. It never shortens a mark. It may
	// refuse an owner that has too many. After an error nothing is known about
	// any of them.
	Mark(ctx context.Context, owner routing.Owner, marks []routing.Mark) (until time.Time, err error)
}

// AddrSet is a set of addresses. A nil AddrSet is empty.
type AddrSet interface {
	Contains(a netip.Addr) bool
}

// Mode is how a name in no list is decided.
type Mode string

// The modes of auto.
const (
	ForeignFirst Mode = "foreign-first"
	Race         Mode = "race"
	ForeignOnly  Mode = "foreign-only"
)

// Mixed says when addresses at home and abroad count as home.
type Mixed string

// The values of mixed.
const (
	MixedAll   Mixed = "all"   // all of them are home
	MixedAny   Mixed = "any"   // at least one is
	MixedFirst Mixed = "first" // the first is
)

// Side is a named group of servers.
type Side struct {
	Exchanger upstream.Exchanger
	Path      routing.Path
	Proxy     string // what carries its queries on that path, as whom; "": nothing
	// Trusted says that nobody between us and the servers can change an
	// answer: its AD bit may be believed.
	Trusted bool
	// Spoofable says that somebody on the path could forge an answer: UDP
	// outside a tunnel.
	Spoofable bool
	Subnet    Subnet
	// Private says that its answers may hold private addresses: the servers are
	// of a network that has them.
	Private bool
}

// Auto says how names in no list are decided.
type Auto struct {
	Mode  Mode
	Mixed Mixed
	// Judge is asked on the foreign path which region a name is in, with a
	// client subnet of Home in the question. Its servers must honour that. Nil:
	// the foreign side's own answer decides.
	Judge upstream.Exchanger
	Home  netip.Prefix // a public prefix of the home region; invalid: no subnet is sent
}

// Poison says what a forged answer looks like.
type Poison struct {
	Hold   time.Duration // how long to wait for a better answer than a suspicious one
	Forged AddrSet       // addresses that only forged answers have
	Bogus  AddrSet       // addresses that mean NXDOMAIN
	Probe  bool          // find the servers that answer names that do not exist
}

// Local is what we answer out of ourselves, beside the rules.
type Local struct {
	Records *policy.Records // come before the rules
	Bypass  *policy.Bypass
	DNS64   DNS64
}

// Policy is everything that a reload replaces. It never changes after New or
// Swap got it.
type Policy struct {
	Names     *policy.Names
	Views     *policy.Views // nil: all clients and listeners are alike
	Addresses *policy.Addresses
	Clients   []policy.ClientPath // the first of a client comes before Addresses
	Sides     map[string]Side
	Auto      Auto
	Poison    Poison
	Keep      Keep
	Geo       Classifier
	Local     Local
	PrivateOK []dnsname.FQDN // names whose answers may be private, and those below
	// AnswerUnmarked says that an answer is given also when the kernel did not
	// take its addresses ([marks] on_error = "answer").
	AnswerUnmarked bool

	ids     map[string]string // of Sides, as the cache knows them
	judgeID string
}

// sideIDLen is the octets of what the cache calls a side.
const sideIDLen = 8

// identified returns a copy of p that knows what the cache calls its sides:
// one that is asked elsewhere, on another path or through another proxy after a
// reload is another side, though it has the same name.
func (p *Policy) identified() *Policy {
	c := *p
	id := func(name string, way Side, ex upstream.Exchanger) string {
		if ex == nil {
			return name
		}
		text := name + " " + string(way.Path) + " " + ex.String()
		if way.Proxy != "" {
			text += " through " + way.Proxy
		}
		sum := sha256.Sum256([]byte(text))
		return string(sum[:sideIDLen]) // a side may have many servers, and a key has little room
	}
	c.ids = make(map[string]string, len(p.Sides))
	for name, side := range p.Sides {
		c.ids[name] = id(name, side, side.Exchanger)
	}
	c.judgeID = id(Foreign+" as from "+p.Auto.Home.String(), p.Sides[Foreign], p.Auto.Judge)
	return &c
}

// Paths is what the resolver has to know of the kernel's state. Functions are
// called for every answer: they must be quick and safe for concurrent use. A
// nil function is one that says nothing special.
type Paths struct {
	// Marker is nil where no answer is marked: for want of a tunnel, or for what
	// Unmarked says.
	Marker   Marker
	Unmarked string
	// Never returns why an address must not be marked (it is ours, a gateway, a
	// WireGuard endpoint, an upstream), "" when it may be.
	Never func(netip.Addr) (reason string)
	// StaticAgrees reports whether an address leaves by a path without a new
	// mark: the static sets and the default send it there, and no mark that it
	// has already sends it elsewhere.
	StaticAgrees func(netip.Addr, routing.Path) bool
	// CanV6 reports whether a path carries IPv6 now; nil: every path does.
	CanV6 func(routing.Path) bool
}

// Limits bound what clients can make the resolver do.
type Limits struct {
	Total     time.Duration // for one query, whatever it takes
	InFlight  int           // queries waiting for upstreams
	PerClient int           // of one client address
	PerZone   int           // questions under way about names of one zone
}

// DefaultLimits are SECURITY.md's (6.2).
func DefaultLimits() Limits {
	return Limits{Total: 5 * time.Second, InFlight: 4096, PerClient: 200, PerZone: 200}
}

// Config is what a Resolver is made of. Policy, Cache and Learned must be set.
type Config struct {
	Policy  *Policy
	Cache   *cache.Cache
	Sealed  *cache.Sealed // nil: nobody reads what is sealed
	Learned *Learned
	Paths   Paths
	Limits  Limits // the zero value: DefaultLimits
	Log     *slog.Logger
	// Go runs a function in a goroutine of its own; nil: as the statement does.
	Go func(func())
}

// Resolver answers queries. Its methods are safe for concurrent use.
type Resolver struct {
	policy  atomic.Pointer[Policy]
	cache   *cache.Cache
	sealed  *cache.Sealed
	learned *Learned
	paths   Paths
	limits  Limits
	log     *slog.Logger
	owners  maphash.Seed // of the names of those on whose behalf marks are made
	flights flights
	answers sync.Pool // of *answering, that are over
	servers servers
	count   counters

	bounds
	beside
}

// bounds is what queries may take of us.
type bounds struct {
	slots   slots
	parsing parsing
}

// beside counts what is under way that no query waits for.
type beside struct {
	ahead     atomic.Int32 // prefetches
	rejudging atomic.Int32 // verdicts being judged again
}

// New returns a Resolver. It starts nothing: goroutines live no longer than
// the queries that need them, plus Limits.Total.
func New(c Config) *Resolver {
	r := &Resolver{cache: c.Cache, sealed: c.Sealed, learned: c.Learned, paths: c.Paths, limits: c.Limits, log: c.Log, owners: maphash.MakeSeed()}
	if r.limits == (Limits{}) {
		r.limits = DefaultLimits()
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.sealed == nil {
		r.sealed = cache.NewSealed(0, &cache.Generation{})
	}
	r.slots.limits = r.limits
	r.answers.New = func() any { return newAnswering() }
	r.flights.ends = work.NewDeadlines(context.Background(), r.limits.Total)
	r.flights.over = make(chan struct{})
	close(r.flights.over)
	if r.flights.start = c.Go; c.Go == nil {
		r.flights.start = func(f func()) { go f() }
	}
	r.policy.Store(c.Policy.identified())
	return r
}

// Swap replaces the policy. Queries under way end with the old one. The cache
// stays: what lies in it is judged and marked again, sealed answers too, and
// lives for as long as the new policy keeps answers.
func (r *Resolver) Swap(p *Policy) {
	old := r.policy.Swap(p.identified())
	r.flights.loops.keep(p)
	r.servers.hijacks.keep(p)
	p.Keep.relife(r.cache, old.Keep)
	r.sealed.Generation().Advance()
}

// Flush forgets every cached answer. Learned verdicts stay.
func (r *Resolver) Flush() {
	r.cache.Flush()
	r.sealed.Flush()
}

// Learned returns what auto learned about names.
func (r *Resolver) Learned() *Learned { return r.learned }

// Cache returns a snapshot of the cache's state.
func (r *Resolver) Cache() cache.Stats { return r.cache.Stats() }
