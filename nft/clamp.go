package nft

// fitting is the largest packet that passes through the tunnel.
func (t Tunnel) fitting() int {
	if t.Fits != 0 {
		return min(t.Fits, t.MTU)
	}
	return t.MTU
}

// clamps lowers the segment size that a SYN announces to what packets of mtu
// bytes hold, and never raises it. For MTU 0 there are none.
func (t Tunnel) clamps(mtu int, matches ...term) []rule {
	var all []rule
	for _, f := range families() {
		if mtu > f.headers {
			terms := append(matches[:len(matches):len(matches)], isSYN(), f.only(), clampTo(uint16(mtu-f.headers)))
			all = append(all, on(terms...))
		}
	}
	return all
}
