package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/configs"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// answering returns a resolver whose only side, of that name, says 192.0.2.1
// for 300 s, and counts what it is asked.
func answering(t *testing.T, name string, asked *int) *resolver.Resolver {
	t.Helper()
	names, err := policy.NewNames([]policy.NameRule{{Rule: policy.Rule{Side: resolver.Foreign}, Entries: []policy.Entry{{Kind: policy.All}}}})
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: routing.Direct}, All: true}})
	if err != nil {
		t.Fatal(err)
	}
	ex := &resolvertest.Exchanger{Name: name, OnExchange: func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		*asked++
		m := append([]byte(nil), q.Msg[:len(q.Msg)-11]...)
		m[2], m[3], m[7], m[11] = 0x81, 0x80, 1, 0
		m = append(m, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 93, 184, 216, 34)
		return upstream.Reply{Msg: m}, nil
	}}
	return resolver.New(resolver.Config{
		Policy: &resolver.Policy{
			Names: names, Addresses: addresses, Geo: resolvertest.Geo{},
			Sides: map[string]resolver.Side{resolver.Foreign: {Exchanger: ex, Path: routing.Direct, Trusted: true}},
		},
		Cache: cache.New(0), Learned: resolver.NewLearned(100),
	})
}

func kept(r *resolver.Resolver, dir string) *keptAnswers {
	return openKept(r, dir, slog.New(slog.DiscardHandler))
}

func ask(t *testing.T, r *resolver.Resolver) *resolver.Decision {
	t.Helper()
	d := r.Resolve(t.Context(), resolver.Ask("www.example.org.", 1, netip.Addr{}))
	if d.RCode != "NOERROR" {
		t.Fatalf("%+v", d)
	}
	return d
}

func TestCacheIsKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := answering(t, "udp://192.0.2.53", &asked)
		k := kept(r, dir)
		k.load(true)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.run(ctx); close(done) }()
		ask(t, r)
		if _, err := os.Stat(k.file.path); err == nil {
			t.Error("it was written at once")
		}
		time.Sleep(cacheEvery)
		synctest.Wait()
		info, err := os.Stat(k.file.path)
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("after %s: %v, %v", cacheEvery, info, err)
		}
		time.Sleep(cacheEvery)
		synctest.Wait()
		if again, _ := os.Stat(k.file.path); !os.SameFile(info, again) {
			t.Error("it was written again without a change")
		}
		ask(t, r)
		time.Sleep(100 * time.Second)
		stop()
		<-done
		if asked != 2 {
			t.Fatalf("asked %d times", asked)
		}

		// The next start has it, as old as it is.
		r = answering(t, "udp://192.0.2.53", &asked)
		kept(r, dir).load(true)
		if s := ask(t, r).Steps[0]; asked != 2 || s.Cached != "fresh" || s.Age.Round(time.Second) != 100*time.Second {
			t.Errorf("asked %d times, %s, %s old", asked, s.Cached, s.Age)
		}
		// What other servers said is not served.
		r = answering(t, "udp://192.0.2.54", &asked)
		kept(r, dir).load(true)
		if s := ask(t, r).Steps[0]; asked != 3 || s.Cached != "" {
			t.Errorf("asked %d times, %s", asked, s.Cached)
		}
		// Nor is it when nobody wants it, and then it goes.
		r = answering(t, "udp://192.0.2.53", &asked)
		k = kept(r, dir)
		k.load(false)
		ask(t, r)
		k.save()
		if left, _ := os.ReadDir(dir); asked != 4 || len(left) != 0 {
			t.Errorf("asked %d times, left %v", asked, left)
		}
	})
}

// (SECURITY F-29)
func TestCorruptCacheIsSetAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, cacheName), []byte("smartdns cache 1\nnonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	k := kept(answering(t, "x", &asked), dir)
	k.load(true)
	all := k.conditions()
	if len(all) != 1 || !strings.Contains(all[0].What, "checksum") || all[0].Severity != severityWarning {
		t.Errorf("conditions: %+v", all)
	}
	ask(t, k.resolver)
	k.save()
	if n, _, err := answering(t, "x", &asked).LoadCache(strings.NewReader("")); n != 0 || err == nil {
		t.Errorf("an empty file: %d, %v", n, err)
	}
	for _, name := range []string{"cache", "cache.corrupt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// (SECURITY F-27)
func TestUnwritableCacheIsACondition(t *testing.T) {
	asked := 0
	r := answering(t, "x", &asked)
	k := kept(r, filepath.Join(t.TempDir(), "gone"))
	k.load(true)
	ask(t, r)
	k.save()
	if all := k.conditions(); len(all) != 1 || !strings.Contains(all[0].What, "forgotten by a restart") {
		t.Errorf("conditions: %+v", all)
	}
}

func TestCacheSize(t *testing.T) {
	c := configs.Default()
	if n := cacheSize(c); n < 1<<20 || n > cacheBytes {
		t.Errorf("auto: %d", n)
	}
	c.Cache.Size = 5 << 20
	if n := cacheSize(c); n != 5<<20 {
		t.Errorf("as the file says: %d", n)
	}
}
