package routing

import "fmt"

// MAC is the link-layer address of a client. The zero value is that of a client
// of whom we know none.
type MAC [6]byte

// String returns the MAC as "00:11:22:aa:bb:cc".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}
