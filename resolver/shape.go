package resolver

import (
	"fmt"
	"strings"

	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// shape is what the rules of a chain do to its answer: each kind as the first
// rule has it that says one.
type shape struct {
	aaaa      policy.AAAAShape
	https     policy.HTTPSShape
	aaaaFrom  string // "file:line"
	httpsFrom string
}

func (s shape) with(r policy.Rule) shape {
	if s.aaaa == policy.AAAAAuto {
		s.aaaa, s.aaaaFrom = r.Shape.AAAA, r.Pos
	}
	if s.https == policy.HTTPSAuto {
		s.https, s.httpsFrom = r.Shape.HTTPS, r.Pos
	}
	return s
}

// refuses returns why an address may not be answered, "" when it may.
func (s shape) refuses(f found) string {
	hint := strings.HasSuffix(f.from, "hint")
	switch {
	case s.aaaa == policy.AAAADrop && f.addr.Is6():
		return fmt.Sprintf("aaaa = %q (%s)", s.aaaa, s.aaaaFrom)
	case s.https == policy.HTTPSStrip && hint:
		return fmt.Sprintf("https = %q (%s)", s.https, s.httpsFrom)
	}
	return ""
}

// shaped answers a question whose answer the rules drop whole, without asking
// anybody.
func (t *task) shaped() (outcome, bool) {
	why := ""
	switch {
	case t.q.Type == wire.TypeAAAA && t.shape.aaaa == policy.AAAADrop:
		why = fmt.Sprintf("aaaa = %q (%s)", t.shape.aaaa, t.shape.aaaaFrom)
	case isService(t.q.Type) && t.shape.https == policy.HTTPSDrop:
		why = fmt.Sprintf("https = %q (%s)", t.shape.https, t.shape.httpsFrom)
	default:
		return outcome{}, false
	}
	t.step().Local = why
	t.explain(edeFiltered, why)
	return outcome{msg: message{authority: []record{localSOA(t.name)}}}, true
}

// reversed answers the reverse name of an address that dns64 made with that of
// the v4 address in it.
func (t *task) reversed() (outcome, bool) {
	target, ok := t.pol.Local.DNS64.reverse(t.name, t.q.Type)
	if !ok {
		return outcome{}, false
	}
	t.step().Local = fmt.Sprintf("dns64: a v4 address in %s", t.pol.Local.DNS64.Prefix)
	return outcome{msg: message{answer: []record{{t.name, wire.TypeCNAME, localTTL, target.AppendWire(nil)}}}}, true
}

// recorded answers a name that has records of the user's, from these alone.
func (t *task) recorded() (outcome, bool) {
	all, at, ok := t.pol.Local.Records.Match(t.name)
	if !ok {
		return t.reversed()
	}
	t.rule = policy.Rule{Index: RecordIndex, Text: at.String(), Action: policy.Local}
	m := message{}
	for _, rec := range all {
		if rec.Type == t.q.Type || rec.Type == policy.TypeCNAME || t.q.Type == typeANY {
			m.answer = append(m.answer, record{t.name, rec.Type, rec.TTL, rec.Data})
			if t.rule.Pos == "" {
				t.rule.Pos = rec.Pos.String()
			}
		}
	}
	t.step().Local = "record"
	if m.answer == nil {
		m.authority = []record{localSOA(t.name)}
		t.step().Local = "it has no such record"
		if len(all) > 0 {
			t.rule.Pos = all[0].Pos.String()
		}
	}
	t.step().Rule = ruleOf(t.rule)
	return outcome{msg: m}, true
}
