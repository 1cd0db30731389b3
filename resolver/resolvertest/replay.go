package resolvertest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/dnsname"
)

// Replay holds the conversation in the file at path with a resolver, in
// virtual time, and fails t where it goes another way: another answer, a
// question that went out unasked for or did not go out, another mark.
// testdata/replay/README.md describes the files.
func Replay(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := readScript(f)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer time.Sleep(time.Minute) // virtual: exchanges that nobody waited for end
		for len(lines) > 0 {
			l := lines[0]
			used, err := w.step(t, lines)
			if err != nil {
				t.Fatalf("line %d: %s: %v", l.number, l.verb, err)
			}
			lines = lines[used:]
		}
	})
}

// step does the first of lines, and those that belong to it.
func (w *world) step(t *testing.T, lines []line) (used int, err error) {
	l := lines[0]
	switch l.verb {
	case "query":
		end := 1
		for end < len(lines) && !slices.Contains([]string{"query", "pass", "flush", "count", "learned", "forget", "pin"}, lines[end].verb) && !isSetting(lines[end]) {
			end++
		}
		if err := w.start(); err != nil {
			return 0, err
		}
		return end, w.talk(t, lines[:end])
	case "pass":
		d, err := time.ParseDuration(l.at(0))
		time.Sleep(d) // virtual
		return 1, err
	case "flush":
		w.resolver.Flush()
		return 1, nil
	case "count":
		synctest.Wait()
		if got := counter(w.resolver.Counters(), l.at(0)); got != l.at(1) {
			t.Errorf("line %d: counter %s = %s, want %s", l.number, l.at(0), got, l.at(1))
		}
		return 1, nil
	case "forget":
		n, err := dnsname.Parse(l.at(0))
		w.resolver.Learned().Forget(n)
		return 1, err
	case "pin":
		region := geo.Abroad
		if l.at(1) == "home" {
			region = geo.Home
		}
		if err := w.start(); err != nil {
			return 0, err
		}
		n, err := dnsname.Parse(l.at(0))
		return 1, errors.Join(err, w.resolver.Learned().Pin(n, region))
	case "learned":
		synctest.Wait()
		got := "nothing"
		for _, v := range w.resolver.Learned().All() {
			if v.Name.String() == l.at(0) {
				got = v.Region.String()
				if l.at(2) != "" {
					got += " " + v.Age.String()
				}
			}
		}
		if got != l.rest(1) {
			t.Errorf("line %d: learned about %s: %s, want %s", l.number, l.at(0), got, l.rest(1))
		}
		return 1, nil
	}
	ok, err := w.set(l)
	if err == nil && !ok {
		err = fmt.Errorf("unknown word")
	}
	return 1, err
}

func isSetting(l line) bool {
	return slices.Contains([]string{"auto", "mixed", "judge", "list", "names", "forget-names", "private_ok", "forged", "bogus", "never", "home", "v6", "marker", "static", "on_error", "stale", "prefetch", "min_ttl", "max_ttl",
		"private", "record", "hosts", "forget-records", "dns64"}, l.verb)
}

// counter finds "poison.replaced" among the counters; "" when there is none.
func counter(c resolver.Counters, name string) string {
	group, field, nested := strings.Cut(strings.ToLower(name), ".")
	text := strings.ToLower(fmt.Sprintf("%+v", c))
	if nested {
		_, text, _ = strings.Cut(text, group+":{")
		text, _, _ = strings.Cut(text, "}")
	} else {
		field = group
		text, _, _ = strings.Cut(text, "auto:")
	}
	for word := range strings.FieldsSeq(strings.Trim(text, "{}")) {
		if k, v, _ := strings.Cut(word, ":"); k == field {
			return v
		}
	}
	return ""
}

// talk asks the question of lines[0] and checks what the other lines say of
// it.
func (w *world) talk(t *testing.T, lines []line) error {
	q, times, err := parseQuery(lines[0])
	if err != nil {
		return err
	}
	if err := w.desk.prepare(lines[1:]); err != nil {
		return err
	}
	decisions := make([]*resolver.Decision, times)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range decisions {
		wg.Go(func() { decisions[i] = w.resolver.Resolve(context.Background(), q) })
	}
	wg.Wait()
	took := time.Since(begun)
	// Questions that the answer did not wait for are still to be met.
	synctest.Wait()
	for _, problem := range w.desk.close() {
		t.Errorf("line %d: %s", lines[0].number, problem)
	}
	for _, d := range decisions {
		c := check{t: t, d: d, q: q, took: took}
		for _, l := range lines[1:] {
			if err := c.line(l); err != nil {
				return fmt.Errorf("line %d: %w", l.number, err)
			}
		}
	}
	w.checkMarks(t, lines)
	return nil
}

// parseQuery reads "NAME TYPE [udp|tcp] [+do] [+cd] [+ad] [-edns] [-rd] [size N] [from ADDR] [xN]".
func parseQuery(l line) (*resolver.Query, int, error) {
	name, err := dnsname.Parse(l.at(0))
	if err != nil {
		return nil, 0, err
	}
	typ, ok := dns.StringToType[l.at(1)]
	if !ok {
		return nil, 0, fmt.Errorf("unknown type %s", l.at(1))
	}
	q := resolver.Ask(name, typ, netip.MustParseAddr("192.168.8.20"))
	q.ID = 4711
	times := 1
	for i := 2; i < len(l.words); i++ {
		switch word := l.words[i]; word {
		case "udp", "tcp":
			q.Transport = word
		case "+do":
			q.Flags.DO = true
		case "+cd":
			q.Flags.CD = true
		case "+ad":
			q.Flags.AD = true
		case "-edns":
			q.Flags.EDNS, q.Size = false, 512
		case "-rd":
			q.Flags.RD = false
		default:
			if n, err := fmt.Sscanf(word, "x%d", &times); n != 1 || err != nil {
				return nil, 0, fmt.Errorf("unknown flag %s", word)
			}
		}
	}
	return q, times, nil
}

// prepare lays out what the lines have for upstreams.
func (d *desk) prepare(lines []line) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expected, d.problems = nil, nil
	for _, l := range lines {
		switch l.verb {
		case "ask":
			d.expected = append(d.expected, &expected{line: l.number, ask: l.rest(0)})
		case "reply", "silent", "error":
			if len(d.expected) == 0 {
				return fmt.Errorf("line %d: a reply to nothing", l.number)
			}
			e := d.expected[len(d.expected)-1]
			s, err := parseReply(l, strings.Fields(e.ask)[1])
			if err != nil {
				return fmt.Errorf("line %d: %w", l.number, err)
			}
			e.replies = append(e.replies, s)
		}
	}
	return nil
}

// close returns what went wrong with the questions.
func (d *desk) close() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.expected {
		if !e.asked {
			d.problems = append(d.problems, "did not go out: "+e.ask)
		}
	}
	return d.problems
}

func (w *world) checkMarks(t *testing.T, lines []line) {
	var want, got []string
	for _, l := range lines {
		if l.verb == "marked" {
			want = append(want, l.rest(0))
		}
	}
	for _, m := range w.marker.Take() {
		got = append(got, fmt.Sprintf("%s %s timeout %ds", m.Path, m.Addr, int(m.Life.Seconds())))
	}
	slices.Sort(want)
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(want, got) {
		t.Errorf("line %d: marked\n  %s\nwant\n  %s", lines[0].number, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
