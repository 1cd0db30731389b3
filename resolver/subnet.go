package resolver

import (
	"net/netip"

	"smartdns/geo"
	"smartdns/resolver/wire"
)

// Subnet says which client subnet the queries of a side carry (RFC 7871). The
// zero value is none. What clients send of their own is never passed on, nor
// what servers reply.
type Subnet struct {
	Client bool         // the client's own /24 or /56, unless its address is private
	Prefix netip.Prefix // else this one, if it is valid
}

// The bits of a client's address that a query carries at most (RFC 7871 section
// 11.1).
const (
	subnetBits4 = 24
	subnetBits6 = 56
)

// carried is the subnet of one query; the zero value is none.
type carried struct{ netip.Prefix }

func (s Subnet) of(client netip.Addr) carried {
	if !s.Client {
		return carried{s.Prefix}
	}
	client = client.Unmap().WithZone("")
	if kind, _ := geo.Special(client); !client.IsValid() || kind != geo.NotSpecial {
		return carried{}
	}
	bits := subnetBits6
	if client.Is4() {
		bits = subnetBits4
	}
	p, err := client.Prefix(bits)
	if err != nil {
		return carried{}
	}
	return carried{p}
}

// key tells answers for different subnets apart.
func (c carried) key() string {
	if !c.IsValid() {
		return ""
	}
	return string(append(c.Addr().AsSlice(), byte(c.Bits())))
}

// option returns the EDNS option, nil without a subnet.
func (c carried) option() []byte {
	if !c.IsValid() {
		return nil
	}
	return wire.AppendECS(nil, c.Prefix)
}
