package list

import (
	"bufio"
	"errors"
	"io"
	"iter"
	"net/netip"

	"go4.org/netipx"
)

// GeoIP reads one category of a geoip.dat of v2ray: the one with this code,
// such as "cn" or "private". Of a category that stands for what is not in it
// that is yielded. Numbers of lines count the prefixes of the category; those
// of what is not in it are all 1.
func GeoIP(r io.Reader, code string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		g := geoip{}
		d := dat{in: bufio.NewReaderSize(r, maxLine)}
		err := d.find(code)
		inverse := false
		if err == nil {
			inverse, err = d.elements(g.add)
		}
		if err != nil {
			yield(Line{}, fileError(len(g.all), err))
			return
		}
		out := output{yield: yield}
		if inverse {
			out.number = 1
			g.invert(&out)
			return
		}
		for _, p := range g.all {
			out.number++
			reason := ""
			if !p.IsValid() {
				reason = "not a prefix: its address has 4 or 16 octets, its length at most as many bits"
			} else {
				emitPrefix(p, out.emit)
			}
			if out.judge(nil, reason); out.stopped {
				return
			}
		}
		out.end()
	}
}

// geoip gathers a category: whether it stands for what is not in it comes last.
type geoip struct{ all []netip.Prefix }

func (g *geoip) add(cidr []byte) bool {
	g.all = append(g.all, cidrOf(cidr))
	return len(g.all) < MaxLines
}

// cidrOf reads a CIDR message; what is none is the invalid prefix.
func cidrOf(b []byte) netip.Prefix {
	var addr netip.Addr
	bits := uint64(0)
	for len(b) > 0 {
		tag, value, data, rest, ok := cutMessage(b)
		if !ok {
			return netip.Prefix{}
		}
		b = rest
		switch tag {
		case 1<<3 | wireBytes:
			addr, _ = netip.AddrFromSlice(data)
		case 2<<3 | wireVarint:
			bits = value
		}
	}
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	if !addr.IsValid() || addr.Is4In6() || bits > uint64(addr.BitLen()) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, int(bits)).Masked()
}

// invert passes on what is not in the category.
func (g *geoip) invert(out *output) {
	var b netipx.IPSetBuilder
	b.AddPrefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	b.AddPrefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	for _, p := range g.all {
		if !p.IsValid() {
			out.yield(Line{}, &FileError{Reason: "a category that stands for what is not in it has a prefix that is none"})
			return
		}
		b.RemovePrefix(p)
	}
	set, err := b.IPSet()
	if err != nil {
		out.yield(Line{}, errors.New("turning the category round: "+err.Error()))
		return
	}
	for _, p := range set.Prefixes() {
		if !emitPrefix(p, out.emit) {
			return
		}
	}
}
