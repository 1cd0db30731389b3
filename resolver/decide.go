package resolver

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// localTTL is the TTL of answers that we make ourselves: short, since the file
// they come from can change at any time.
const localTTL = 60

const (
	typeHINFO = 13
	typeANY   = 255
)

// decide answers t.name by the first rule that matches it.
func (r *Resolver) decide(ctx context.Context, t *task) outcome {
	rule, ok := t.pol.Names.MatchFor(t.name, t.view.Lines)
	if !ok {
		rule = policy.Rule{Index: -1, Text: "no rule matches", Action: policy.AskAuto}
	}
	rule = t.pol.Local.Bypass.Over(rule, t.name, t.view.Lines)
	t.rule = rule
	t.next(Step{Name: t.name.String(), Rule: ruleOf(rule)})
	if out, ok := r.returned(t); ok {
		return out
	}
	if out, ok := t.recorded(); ok {
		return out
	}
	if t.pin.Via == "" && rule.Via != "" {
		t.pin = rule
	}
	t.shape = t.shape.with(rule)
	if out, ok := t.shaped(); ok {
		return out
	}
	if m, why, ok := special(t.name, t.q.Type, rule); ok {
		t.step().Local = why
		return outcome{msg: m}
	}
	switch {
	case rule.Action == policy.Local:
		return t.local(rule)
	case t.q.Type == typeANY:
		t.step().Local = "ANY (RFC 8482)"
		return outcome{msg: message{answer: []record{{t.name, typeHINFO, localTTL, []byte("\x07RFC8482\x00")}}}}
	case !t.q.Flags.RD:
		t.step().Local = "no recursion was asked for, and the cache is nobody's to read"
		t.explain(edeProhibited, "recursion was not asked for")
		return outcome{msg: message{rcode: wire.Refused}}
	case t.view.Side != "":
		return r.only(ctx, t)
	case rule.Alone:
		return r.alone(ctx, t, rule.Side)
	case rule.Action == policy.AskAuto:
		return r.auto(ctx, t)
	case rule.Side == Domestic && t.stay == "":
		return r.domestic(ctx, t)
	}
	t.side = rule.Side
	if t.side == Domestic {
		t.side = t.stay
	}
	return r.settle(ctx, t, t.side, forAnswer)
}

// local answers as a rule says.
func (t *task) local(rule policy.Rule) outcome {
	t.step().Local = string(rule.Answer.Kind)
	m := message{authority: []record{localSOA(t.name)}}
	switch rule.Answer.Kind {
	case policy.AnswerNXDomain, policy.AnswerBlock:
		m.rcode = wire.NXDomain
	case policy.AnswerRefused:
		m = message{rcode: wire.Refused}
	case policy.AnswerCNAME:
		return outcome{msg: message{answer: []record{{t.name, wire.TypeCNAME, localTTL, rule.Answer.Target.AppendWire(nil)}}}}
	case policy.AnswerNull:
		m = t.addresses(netip.IPv4Unspecified(), netip.IPv6Unspecified())
	case policy.AnswerAddress:
		return outcome{msg: t.addresses(rule.Answer.Addrs...)}
	}
	t.explain(edeBlocked, fmt.Sprintf("blocked by %s (%s)", rule.Text, rule.Pos))
	return outcome{msg: m}
}

// addresses answers with those of addrs that the asked type has, or that there
// are none.
func (t *task) addresses(addrs ...netip.Addr) message {
	var m message
	for _, a := range addrs {
		typ := wire.TypeAAAA
		if a.Is4() {
			typ = wire.TypeA
		}
		if typ == t.q.Type || t.q.Type == typeANY {
			m.answer = append(m.answer, record{t.name, typ, localTTL, a.AsSlice()})
		}
	}
	if m.answer == nil {
		m.authority = []record{localSOA(t.name)}
	}
	return m
}

// localSOA makes a negative answer of our own one that clients can cache
// (RFC 2308 section 3).
func localSOA(zone dnsname.FQDN) record {
	data := dnsname.FQDN("localhost.").AppendWire(nil)
	data = dnsname.FQDN("nobody.invalid.").AppendWire(data)
	for _, n := range []uint32{1, 3600, 1200, 604800, localTTL} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return record{zone, wire.TypeSOA, localTTL, data}
}
