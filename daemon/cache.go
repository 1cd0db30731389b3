package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"smartdns/configs"
	"smartdns/resolver"
	"smartdns/web/api"
)

const (
	cacheName    = "cache" // in the state directory
	maxCacheFile = 1 << 30 // bytes; less than the largest cache comes to
	// cacheEvery is how often a changed cache goes to disk: what is lost with
	// the power is asked for again, and flash memory wears out.
	cacheEvery = 10 * time.Minute
	cacheBytes = 64 << 20
)

// cacheSize is how many bytes answers may take: half of them by side, and half
// as the fast lane gives them.
func cacheSize(c *configs.Config) int {
	if c.Cache.Size != 0 {
		return c.Cache.Size
	}
	return int(min(cacheBytes, memoryLimit()/3))
}

// resizeCache gives the cache the size and the place on disk that the config
// says.
func (e *engine) resizeCache() {
	size := cacheSize(e.parts.Config) / 2
	if e.cache.Stats().Capacity != size {
		e.cache.Resize(size)
		e.sealed.Resize(size)
	}
	e.kept.want(e.parts.Config.Cache.Save)
}

// keptAnswers keeps the cache over restarts.
type keptAnswers struct {
	resolver *resolver.Resolver
	file     stateFile
	log      *slog.Logger

	mu      sync.Mutex // guards the rest, and the file
	wanted  bool       // as the config says
	saved   uint64     // the changes that are on disk
	trouble []api.Condition
	unsaved string // why they are not; "" when they are
}

func openKept(r *resolver.Resolver, dir string, log *slog.Logger) *keptAnswers {
	return &keptAnswers{
		resolver: r, log: log,
		file: stateFile{path: filepath.Join(dir, cacheName), kind: "smartdns cache 1", limit: maxCacheFile},
	}
}

// load reads what is kept, when that is wanted. What cannot be read is a
// condition, for it is only a memory.
func (k *keptAnswers) load(wanted bool) {
	k.want(wanted)
	if !wanted {
		return
	}
	begun, n, behind := time.Now(), 0, false
	err := k.file.load(func(r io.Reader) (err error) {
		n, behind, err = k.resolver.LoadCache(r)
		return err
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.resolver.Flush() // what came before the error may be no better
		k.trouble = append(k.trouble, api.Condition{
			Severity: severityWarning, What: err.Error(), Since: time.Now(),
			Fix: "nothing needs to be done: names are asked for again; remove the file",
		})
	}
	if behind {
		k.log.Warn("the clock is behind the time when the cache was saved: what was kept is only given as stale")
	}
	if n > 0 {
		k.log.Info("answers of before the start are there again", "entries", n, "took", time.Since(begun).Round(time.Millisecond))
	}
	k.saved = k.resolver.CacheChanges()
}

// want says whether the cache is kept. One that is not leaves no trace on disk.
func (k *keptAnswers) want(wanted bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = wanted
	if wanted {
		return
	}
	k.unsaved, k.trouble = "", nil
	if err := os.Remove(k.file.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.unsaved = fmt.Sprintf("removing what was kept: %s", err)
	}
}

// run saves the cache every now and then, and when ctx ends.
func (k *keptAnswers) run(ctx context.Context) {
	tick := time.NewTicker(cacheEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.save()
			return
		case <-tick.C:
			k.save()
		}
	}
}

// save writes the cache if it changed.
func (k *keptAnswers) save() {
	k.mu.Lock()
	defer k.mu.Unlock()
	changes := k.resolver.CacheChanges()
	if !k.wanted || changes == k.saved {
		return
	}
	err := k.file.save(k.resolver.SaveCache)
	switch {
	case err == nil:
		k.saved, k.unsaved = changes, ""
	case k.unsaved != err.Error():
		k.unsaved = err.Error()
		k.log.Warn("the cache is not kept: " + k.unsaved)
	}
}

func (k *keptAnswers) conditions() []api.Condition {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(k.trouble)
	if k.unsaved != "" {
		all = append(all, api.Condition{
			Severity: severityWarning, Since: time.Now(), What: "the cache would be forgotten by a restart: " + oneLine(k.unsaved),
			Fix: "make room or rights in " + filepath.Dir(k.file.path) + ", or write save = false under [cache]",
		})
	}
	return all
}
