package resolver

import "sync/atomic"

// Counters is a snapshot of what the resolver did. Every figure only grows.
type Counters struct {
	Queries    uint64 // all
	Hits       uint64 // answered from the cache
	Local      uint64 // answered without asking anybody
	Failed     uint64 // SERVFAIL
	Overloaded uint64 // over a limit
	Shared     uint64 // questions that an equal one in flight answered
	Stale      uint64 // answered from the cache after the answer expired
	Prefetches uint64 // answers fetched before they expired
	Capped     uint64 // queries that had no packet left for another try
	Auto       AutoCounters
	Poison     PoisonCounters
	Marks      MarkCounters
}

// AutoCounters counts how auto decided.
type AutoCounters struct {
	Judged       uint64 // names judged
	Contradicted uint64 // verdicts that an answer contradicted
	Exposed      uint64 // names in no list that the domestic side was asked about
	Fallback     uint64 // all-home answers taken from the domestic side while foreign was unreachable
	Refused      uint64 // domestic answers refused then, as they were not all home
}

// PoisonCounters counts forged answers.
type PoisonCounters struct {
	Suspicious uint64 // answers of the domestic side that looked forged
	Replaced   uint64 // by the foreign side's answer
	Used       uint64 // for want of a better one
	Bogus      uint64 // turned into NXDOMAIN
	Stripped   uint64 // private or bogon addresses taken out of answers
}

// MarkCounters counts how addresses were tied to paths.
type MarkCounters struct {
	Answers       uint64 // answers whose addresses were marked
	Failed        uint64 // answers whose addresses the kernel did not take
	Agreed        uint64 // of those, given since the static sets agree
	Unmarked      uint64 // of those, given because the config says so
	Never         uint64 // addresses on the never-insert list
	DirectRefused uint64 // foreign addresses of names of the domestic side, not pulled out of the tunnel
}

type counters struct {
	queries, hits, local, failed, overloaded, shared, capped, stale, prefetches atomic.Uint64

	auto   autoCounters
	poison struct{ suspicious, replaced, used, bogus, stripped atomic.Uint64 }
	marks  struct{ answers, failed, agreed, unmarked, never, directRefused atomic.Uint64 }
}

type autoCounters struct {
	judged, contradicted, fallback, refused atomic.Uint64

	exposed exposed
}

// Counters returns a snapshot.
func (r *Resolver) Counters() Counters {
	c := &r.count
	return Counters{
		Queries: c.queries.Load(), Hits: c.hits.Load(), Local: c.local.Load(), Failed: c.failed.Load(),
		Overloaded: c.overloaded.Load(), Shared: c.shared.Load(), Capped: c.capped.Load(),
		Stale: c.stale.Load(), Prefetches: c.prefetches.Load(),
		Auto: AutoCounters{
			Judged: c.auto.judged.Load(), Contradicted: c.auto.contradicted.Load(), Exposed: c.auto.exposed.count.Load(),
			Fallback: c.auto.fallback.Load(), Refused: c.auto.refused.Load(),
		},
		Poison: PoisonCounters{
			Suspicious: c.poison.suspicious.Load(), Replaced: c.poison.replaced.Load(), Used: c.poison.used.Load(),
			Bogus: c.poison.bogus.Load(), Stripped: c.poison.stripped.Load(),
		},
		Marks: MarkCounters{
			Answers: c.marks.answers.Load(), Failed: c.marks.failed.Load(), Agreed: c.marks.agreed.Load(),
			Unmarked: c.marks.unmarked.Load(), Never: c.marks.never.Load(), DirectRefused: c.marks.directRefused.Load(),
		},
	}
}
