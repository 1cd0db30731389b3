package resolvertest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
)

// check compares a Decision with what the lines say of it.
type check struct {
	t    *testing.T
	d    *resolver.Decision
	q    *resolver.Query
	took time.Duration
}

func (c check) errorf(l line, format string, a ...any) {
	c.t.Helper()
	c.t.Errorf("line %d: %s", l.number, fmt.Sprintf(format, a...))
}

func (c check) line(l line) error {
	c.t.Helper()
	switch l.verb {
	case "ask", "reply", "silent", "error", "marked":
		return nil // the desk and the marker look at these
	case "answer":
		return c.answer(l)
	case "took":
		if want, err := time.ParseDuration(l.at(0)); err != nil || c.took != want {
			c.errorf(l, "took %s, want %s", c.took, l.at(0))
		}
	case "ede":
		got := "nothing"
		if len(c.d.EDE) > 0 {
			got = fmt.Sprintf("%d %s", c.d.EDE[0].Code, c.d.EDE[0].Text)
		}
		if !strings.Contains(got, l.rest(0)) {
			c.errorf(l, "EDE %s, want %s", got, l.rest(0))
		}
	case "unmarked", "dropped":
		c.address(l)
	case "rule":
		if got := c.d.Steps[0].Rule.Text; got != l.rest(0) {
			c.errorf(l, "rule %s, want %s", got, l.rest(0))
		}
	case "judged":
		if a := c.d.Steps[0].Auto; a == nil || a.Why != l.rest(0) {
			c.errorf(l, "judged by %+v, want %s", a, l.rest(0))
		}
	case "note":
		if got := strings.Join(c.d.Notes, "; "); !strings.Contains(got, l.rest(0)) {
			c.errorf(l, "notes %q, want %q", got, l.rest(0))
		}
	case "local":
		if got := c.d.Steps[len(c.d.Steps)-1].Local; got != l.rest(0) {
			c.errorf(l, "answered here by %q, want %q", got, l.rest(0))
		}
	case "cached":
		if got := c.d.Steps[len(c.d.Steps)-1].Cached; got != l.at(0) {
			c.errorf(l, "cached %q, want %q", got, l.at(0))
		}
	case "verdict":
		if got := verdict(c.d.Steps[0].Auto); got != l.rest(0) {
			c.errorf(l, "verdict %s, want %s", got, l.rest(0))
		}
	case "prefetched":
		if s := c.d.Steps[len(c.d.Steps)-1]; !s.Prefetched {
			c.errorf(l, "it was not prefetched: %+v", s.Aged)
		}
	case "cut":
		if got := c.d.Steps[0].Cut; got != l.at(0) {
			c.errorf(l, "cut at %q, want %q", got, l.at(0))
		}
	case "suspect":
		var got []string
		for _, s := range c.d.Steps {
			for _, v := range s.Lookup {
				got = append(got, v.Suspect)
			}
		}
		if !strings.Contains(strings.Join(got, "; "), l.rest(0)) {
			c.errorf(l, "suspected %q, want %q", got, l.rest(0))
		}
	default:
		return fmt.Errorf("unknown word %s", l.verb)
	}
	return nil
}

// address checks "unmarked ADDR WHY" and "dropped ADDR WHY".
func (c check) address(l line) {
	c.t.Helper()
	for _, a := range c.d.Addresses {
		why := a.Note
		if l.verb == "dropped" {
			why = a.Dropped
		}
		if a.Addr.String() == l.at(0) && why != "" && strings.Contains(why, l.rest(1)) {
			return
		}
	}
	c.errorf(l, "%s is not %s with %q: %+v", l.at(0), l.verb, l.rest(1), c.d.Addresses)
}

// answer checks "RCODE [+ad] [+tc] [RR; RR]" against the packed reply.
func (c check) answer(l line) error {
	c.t.Helper()
	l.words = append([]string(nil), l.words...)
	tc := l.at(1) == "+tc"
	if tc {
		l.words = append(l.words[:1], l.words[2:]...)
	}
	want := scripted{msg: new(dns.Msg)}
	if err := want.read(l.words, c.q.Name.String()); err != nil {
		return err
	}
	packed := c.d.Reply(nil, c.q)
	got := new(dns.Msg)
	if err := got.Unpack(packed); err != nil {
		c.errorf(l, "the reply does not unpack: %v", err)
		return nil
	}
	head := func(m *dns.Msg, tc bool) string {
		s := dns.RcodeToString[m.Rcode]
		if m.AuthenticatedData {
			s += " +ad"
		}
		if tc {
			s += " +tc"
		}
		for _, rr := range m.Answer {
			s += "\n    " + rr.String()
		}
		return s
	}
	if g, w := head(got, got.Truncated), head(want.msg, tc); g != w {
		c.errorf(l, "answer\n  %s\nwant\n  %s\n%s", g, w, c.story())
	}
	if got.Id != c.q.ID || !got.Response || !got.RecursionAvailable || got.Authoritative ||
		got.RecursionDesired != c.q.Flags.RD || got.CheckingDisabled != c.q.Flags.CD || (got.IsEdns0() != nil) != c.q.Flags.EDNS {
		c.errorf(l, "header %+v, OPT %v, asked with %+v", got.MsgHdr, got.IsEdns0() != nil, c.q.Flags)
	}
	if opt := got.IsEdns0(); opt != nil && !tc {
		c.reason(l, opt)
	}
	return nil
}

// verdict is what a story says of the verdict that decided.
func verdict(s *resolver.Story) string {
	switch {
	case s == nil || !s.Learned:
		return "none"
	case s.Pinned:
		return s.Region + " pinned"
	}
	return s.Region + " " + s.Age.String()
}

// reason checks that the client learns why.
func (c check) reason(l line, opt *dns.OPT) {
	c.t.Helper()
	want, code := -1, -1
	if len(c.d.EDE) > 0 {
		want = c.d.EDE[0].Code
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			code = int(e.InfoCode)
		}
	}
	if code != want {
		c.errorf(l, "the reply has EDE %d, the decision %d", code, want)
	}
}

// story tells what happened, for a failed check.
func (c check) story() string {
	var b strings.Builder
	for _, s := range c.d.Steps {
		fmt.Fprintf(&b, "  %s by %s, side %s %s\n", s.Name, s.Rule.Text, s.Side, s.Local)
		for _, v := range s.Lookup {
			fmt.Fprintf(&b, "    %s (%s): %s %s suspect %s\n", v.Side, v.Why, v.RCode, v.Err, strconv.Quote(v.Suspect))
		}
	}
	fmt.Fprintf(&b, "  EDE %v, notes %q", c.d.EDE, c.d.Notes)
	return b.String()
}
