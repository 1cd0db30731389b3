package server

import (
	"maps"
	"net"
	"strconv"
	"sync/atomic"
)

// zones is the names of the links that link-local clients are behind, by their
// indices. It is safe for concurrent use.
type zones struct {
	names atomic.Pointer[map[uint32]string]
}

// name returns the zone of a link: its name, or its index where it has none any
// more. It asks the kernel once for each link.
func (z *zones) name(index uint32) string {
	known := z.names.Load()
	if known != nil {
		if name, ok := (*known)[index]; ok {
			return name
		}
	}
	link, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return strconv.FormatUint(uint64(index), 10)
	}
	next := map[uint32]string{index: link.Name}
	if known != nil {
		maps.Copy(next, *known)
	}
	z.names.CompareAndSwap(known, &next) // else the next packet asks again
	return link.Name
}

// forget is called when links may have other names.
func (z *zones) forget() { z.names.Store(nil) }
