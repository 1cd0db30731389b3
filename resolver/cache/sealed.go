package cache

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"smartdns/resolver/wire"
)

// Seal is a final answer that may be given again as it is: every address in it
// was judged, and tied to its path for longer than Life.
type Seal struct {
	View   View
	DO, CD bool
	// Msg is the packed answer, uncut, with AD set where it validated, the name
	// asked for in lower case, and at its end the OPT of an answer to a client
	// that sent one.
	Msg  []byte
	Life time.Duration // from now
	// Generation was read before the answer was decided, with the states of
	// Learned added to it.
	Generation uint64
	Learned    []Learned // what the answer was decided by
}

// Learned stands for what is known about a name, which may turn at any time.
type Learned uint16

// learnedStates is how many states of names are told apart: where one turns, a
// thousandth of what was decided by others has to be looked at again.
const learnedStates = 1024

// Sealed keeps the answers of the fast lane. An entry needs nothing beside
// itself: the wire question, the packed answer, where its TTLs are, when it was
// sealed and until when it holds. It is safe for concurrent use. Entries lie in
// large chunks without pointers, under a hard cap of bytes.
type Sealed struct {
	gen     *Generation
	learned [learnedStates]atomic.Uint32 // how often each turned
	seed    maphash.Seed
	clock   *clock
	shard   [sealedShards]sealedShard
}

const (
	sealedShards = 16      // so that workers do not wait for one another
	minSealed    = 1 << 20 // octets
)

// MaxSealed is the size of the largest answer that is sealed: a larger one
// would be cut for every client over UDP.
const MaxSealed = wire.MaxUDP

// NewSealed returns an empty Sealed that holds at most capacity bytes, and
// never less than it needs to be of use (1 MiB). Memory is taken as entries
// come. What was sealed before gen advanced is not given.
func NewSealed(capacity int, gen *Generation) *Sealed {
	s := &Sealed{gen: gen, seed: maphash.MakeSeed(), clock: newClock()}
	s.Resize(capacity)
	return s
}

// Generation returns what Seal and Answer compare seals with.
func (s *Sealed) Generation() *Generation { return s.gen }

// Learned returns what stands for the knowledge of a name, and its present state:
// for a Seal, read before the knowledge is used.
func (s *Sealed) Learned(name string) (l Learned, state uint64) {
	l = Learned(maphash.String(s.seed, name) % learnedStates)
	return l, uint64(s.learned[l].Load())
}

// Turned says that what was known about a name is no more, after that: then
// nothing that was sealed by it is given any more. All else stays sealed.
func (s *Sealed) Turned(name string) {
	l, _ := s.Learned(name)
	s.learned[l].Add(1)
}

// state returns the number of the present state of everything that an answer
// depends on. Its parts only grow: where it is the same, nothing changed.
func (s *Sealed) state(learned learnedBy) uint64 {
	sum := s.gen.Now()
	for i := range learned.len() {
		sum += uint64(s.learned[learned.at(i)].Load())
	}
	return sum
}

// Now returns the time for Answer, which no change of the wall clock moves, and
// which goes on while the machine sleeps.
func (s *Sealed) Now() time.Duration { return s.clock.now() }

// Put seals an answer in place of the one before, and reports whether it did:
// not without a life, of a second at least, not what is larger than MaxSealed or
// was decided by more than 255 names, and not when the generation has passed.
func (s *Sealed) Put(a Seal) bool {
	question := wire.Question(a.Msg)
	if question == nil || len(a.Msg) > MaxSealed || a.Life < time.Second || len(a.Learned) > maxLearned || a.Generation != s.state(learnedOf(a.Learned)) {
		return false
	}
	var room [maxQuestion]byte
	key := sealedKey{question: wire.Key(room[:0], question), view: a.View, flags: flagsOf(a.DO, a.CD)}
	sh, tag := s.at(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.Now()
	sh.put(tag, key, a, now)
	return true
}

// Answer appends the answer to q, as it is at now, to dst: with q's ID, its
// spelling of the name, its RD and CD; with an OPT only if it has one; cut to
// size octets, which is q.Limit over UDP. It reports false when nobody has sealed one that
// still holds, and for a query without RD, which is not the cache's to answer.
// It does not allocate where dst has room for MaxSealed octets.
func (s *Sealed) Answer(dst []byte, q wire.Query, view View, size int, now time.Duration) (reply []byte, ok bool) {
	if !q.RD() {
		return dst, false
	}
	if dst == nil {
		dst = make([]byte, 0, MaxSealed)
	}
	var room [maxQuestion]byte
	key := sealedKey{question: wire.Key(room[:0], q.Question), view: view, flags: flagsOf(q.EDNS.DO, q.CD())}
	sh, tag := s.at(key)
	start := len(dst)
	sh.mu.Lock()
	e, slot := sh.find(tag, key)
	if slot < 0 || !s.valid(e, now) {
		sh.mu.Unlock()
		return dst, false
	}
	e.touch()
	msg := e.msg(q.EDNS.Present)
	dst = wire.Truncate(dst, msg, size)
	if len(dst)-start == len(msg) {
		wire.AgeAt(dst[start:], e.offsets(), uint32((now-e.sealed())/time.Second))
	}
	sh.mu.Unlock()
	reply = dst[start:]
	if !q.EDNS.Present {
		reply[10], reply[11] = 0, 0 // nothing but the OPT was there
	}
	wire.PatchReply(reply, q)
	return dst, true
}

// Holds reports whether there is an answer that Answer would give now.
func (s *Sealed) Holds(question []byte, view View, do, cd bool) bool {
	key := sealedKey{question: wire.Key(nil, question), view: view, flags: flagsOf(do, cd)}
	sh, tag := s.at(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, slot := sh.find(tag, key)
	return slot >= 0 && s.valid(e, s.Now())
}

// valid reports whether an entry may be given at now.
func (s *Sealed) valid(e sealedEntry, now time.Duration) bool {
	return e.until() > now && e.generation() == s.state(e.learned())
}

// Resize makes capacity the cap. What is over it goes.
func (s *Sealed) Resize(capacity int) {
	for i := range s.shard {
		sh := &s.shard[i]
		sh.mu.Lock()
		if sh.limit = max(capacity, minSealed) / sealedShards; sh.bytes() > sh.limit {
			sh.evicted += uint64(sh.index.used)
			sh.reset() // Resolve fills it again
		}
		sh.mu.Unlock()
	}
}

// Flush forgets everything, also what is about to be sealed, and gives the
// memory back.
func (s *Sealed) Flush() {
	s.gen.Advance()
	for i := range s.shard {
		sh := &s.shard[i]
		sh.mu.Lock()
		sh.reset()
		sh.mu.Unlock()
	}
}

// SealedStats is a snapshot of what a Sealed holds.
type SealedStats struct {
	Entries  int // also those that hold no more, until their room is needed
	Bytes    int // with the index and the room not yet used
	Capacity int // that Bytes never exceeds
	Evicted  uint64
}

// Stats returns a snapshot.
func (s *Sealed) Stats() SealedStats {
	var sum SealedStats
	for i := range s.shard {
		sh := &s.shard[i]
		sh.mu.Lock()
		sum.Entries += sh.index.used
		sum.Bytes += sh.bytes()
		sum.Capacity += sh.limit
		sum.Evicted += sh.evicted
		sh.mu.Unlock()
	}
	return sum
}

// maxQuestion is the size of the longest question: a name, type and class.
const maxQuestion = 255 + 4

// sealedKey is what tells answers apart.
type sealedKey struct {
	question []byte // the name in lower case
	view     View
	flags    byte
}

func flagsOf(do, cd bool) (flags byte) {
	if do {
		flags |= 1
	}
	if cd {
		flags |= 2
	}
	return flags
}

// at returns the shard of a key, and its tag there.
func (s *Sealed) at(key sealedKey) (*sealedShard, uint32) {
	// The few views and flags that one question has share its hash.
	h := maphash.Bytes(s.seed, key.question)
	return &s.shard[h%sealedShards], tagOf(h)
}
