package resolver

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

// SvcParamKeys that lead a client to an address (RFC 9460 section 14.3.2).
const (
	keyMandatory = 0
	keyV4Hint    = 4
	keyV6Hint    = 6
)

func isService(typ uint16) bool { return typ == wire.TypeHTTPS || typ == wire.TypeSVCB }

// service is the data of an SVCB or HTTPS record.
type service struct {
	head   []byte // priority and target
	params []param
}

type param struct {
	key   uint16
	value []byte
}

func parseService(data []byte) (service, error) {
	if len(data) < 3 {
		return service{}, errMalformed
	}
	_, n, err := dnsname.FromWire(data[2:])
	if err != nil {
		return service{}, errMalformed
	}
	s := service{head: data[:2+n]}
	for rest := data[2+n:]; len(rest) > 0; {
		if len(rest) < 4 {
			return service{}, errMalformed
		}
		key, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if len(rest) < 4+size {
			return service{}, errMalformed
		}
		p := param{key, rest[4 : 4+size]}
		if w := p.width(); w != 0 && (size == 0 || size%w != 0) {
			return service{}, errMalformed
		}
		s.params = append(s.params, p)
		rest = rest[4+size:]
	}
	return s, nil
}

// width returns the size of one address in a hint, 0 for other parameters.
func (p param) width() int {
	switch p.key {
	case keyV4Hint:
		return 4
	case keyV6Hint:
		return 16
	}
	return 0
}

func (p param) hints() []found {
	w := p.width()
	if w == 0 {
		return nil
	}
	var all []found
	for c := range slices.Chunk(p.value, w) {
		addr, _ := netip.AddrFromSlice(c)
		from := "ipv4hint"
		if w == 16 {
			from = "ipv6hint"
		}
		all = append(all, found{addr: addr, from: from})
	}
	return all
}

func (s service) hints() []found {
	var all []found
	for _, p := range s.params {
		all = append(all, p.hints()...)
	}
	return all
}

// filterHints returns the data of a service record without the hints that keep
// refuses, and the very same data when it refuses none. It reports false when
// the record must go: its data cannot be read, or it lists a hint that is gone
// as mandatory.
func filterHints(r record, keep func(found) bool) ([]byte, bool) {
	s, err := parseService(r.data)
	if err != nil {
		return nil, false
	}
	data, changed := slices.Clone(s.head), false
	for _, p := range s.params {
		value := p.value
		if w := p.width(); w != 0 {
			value = nil
			for i, h := range p.hints() {
				h.ttl = r.ttl
				if keep(h) {
					value = append(value, p.value[i*w:(i+1)*w]...)
				}
			}
			if len(value) != len(p.value) {
				changed = true
			}
			if len(value) == 0 {
				if s.mandatory(p.key) {
					return nil, false
				}
				continue
			}
		}
		data = binary.BigEndian.AppendUint16(data, p.key)
		data = binary.BigEndian.AppendUint16(data, uint16(len(value)))
		data = append(data, value...)
	}
	if !changed {
		return r.data, true
	}
	return data, true
}

func (s service) mandatory(key uint16) bool {
	for _, p := range s.params {
		if p.key != keyMandatory {
			continue
		}
		for c := range slices.Chunk(p.value, 2) {
			if len(c) == 2 && binary.BigEndian.Uint16(c) == key {
				return true
			}
		}
	}
	return false
}
