package resolver

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// Query is one question of one client.
type Query struct {
	Name      dnsname.FQDN
	Type      uint16
	Client    netip.Addr    // invalid for our own questions
	Transport string        // "udp", "tcp", ...; "" for our own questions
	From      policy.Client // the client, as rules for some clients know it
	Flags     Flags
	ID        uint16
	Size      int    // the largest reply over UDP, at least 512
	Question  []byte // in wire form, the name spelled as asked
}

// Flags are the bits of a query that change its answer.
type Flags struct {
	RD, CD, AD bool
	EDNS       bool // there was an OPT
	DO         bool
}

// NewQuery returns the Query of an accepted message. It keeps nothing of q.
func NewQuery(q wire.Query, client netip.Addr, transport string) (*Query, error) {
	all := new(Query)
	if err := all.read(q, policy.Client{Addr: client}, transport); err != nil {
		return nil, err
	}
	return all, nil
}

// read makes all what an accepted message of from asks.
func (all *Query) read(q wire.Query, from policy.Client, transport string) error {
	name, _, err := dnsname.FromWire(q.Name())
	if err != nil {
		return fmt.Errorf("reading the question: %w", err)
	}
	*all = Query{
		Name: name, Type: q.Type, Client: from.Addr, Transport: transport, From: from,
		Flags: Flags{RD: q.RD(), CD: q.CD(), AD: q.AD(), EDNS: q.EDNS.Present, DO: q.EDNS.DO},
		ID:    q.ID(), Size: q.Limit(), Question: append(all.Question[:0], q.Question...),
	}
	return nil
}

// Ask returns a Query of our own, as `smartdns query` makes it.
func Ask(name dnsname.FQDN, qtype uint16, client netip.Addr) *Query {
	return &Query{
		Name: name, Type: qtype, Client: client, From: policy.Client{Addr: client}, Flags: Flags{RD: true, EDNS: true},
		Size: wire.MaxUDP, Question: question(name, qtype),
	}
}

// question returns a question of class IN in wire form.
func question(name dnsname.FQDN, qtype uint16) []byte {
	return appendQuestion(make([]byte, 0, len(name)+5), name, qtype)
}

func appendQuestion(dst []byte, name dnsname.FQDN, qtype uint16) []byte {
	dst = binary.BigEndian.AppendUint16(name.AppendWire(dst), qtype)
	return binary.BigEndian.AppendUint16(dst, wire.ClassIN)
}
