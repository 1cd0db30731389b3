package geo

import (
	_ "embed"
	"iter"
	"net/netip"
	"strings"
)

//go:embed data/doh.txt
var doh string

// DoHDate is the day on which the servers of DoH were put together (UTC).
const DoHDate = "2026-11-23"

// DoHServer is a name of a public server of DNS over HTTPS, or addresses of one.
type DoHServer struct {
	Name   string       // without the last dot; "" for addresses
	Prefix netip.Prefix // invalid for a name
	Line   int          // of geo/data/doh.txt, from 1
}

// DoH returns the public servers of DNS over HTTPS that are part of the program.
func DoH() iter.Seq[DoHServer] {
	return func(yield func(DoHServer) bool) {
		line := 0
		for text := range strings.Lines(doh) {
			line++
			text, _, _ = strings.Cut(text, "#")
			for word := range strings.FieldsSeq(text) {
				s := DoHServer{Name: word, Line: line}
				if p, err := netip.ParsePrefix(word); err == nil {
					s.Name, s.Prefix = "", p
				} else if a, err := netip.ParseAddr(word); err == nil {
					s.Name, s.Prefix = "", netip.PrefixFrom(a, a.BitLen())
				}
				if !yield(s) {
					return
				}
			}
		}
	}
}
