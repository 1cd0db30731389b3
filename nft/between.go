package nft

// between are the rules for what goes from the LAN to private networks behind a
// tunnel whose far end knows the way back: it keeps its source.
func (t Tunnel) between(terms ...term) []rule {
	if !t.Known {
		return nil
	}
	var out []rule
	for _, f := range families() {
		out = append(out, on(append([]term{f.from(setLAN), f.to(setLocal)}, terms...)...).because("LAN to LAN"))
	}
	return out
}
