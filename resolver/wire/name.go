package wire

const (
	maxName   = 255 // octets of a name in wire form
	maxLabel  = 63
	pointer   = 0xc0
	maxJumps  = 32  // compression pointers followed within one name
	maxLabels = 127 // labels of a name of 255 octets
)

// plainName returns the offset behind the uncompressed name at off, or -1.
func plainName(msg []byte, off int) int {
	start := off
	for off < len(msg) {
		size := int(msg[off])
		off++
		switch {
		case size > maxLabel:
			return -1
		case size == 0:
			if off-start > maxName {
				return -1
			}
			return off
		}
		off += size
	}
	return -1
}

// skipName returns the offset behind the name at off without following its
// pointer, or -1.
func skipName(msg []byte, off int) int {
	for off >= 0 && off < len(msg) {
		size := int(msg[off])
		switch {
		case size == 0:
			return off + 1
		case size >= pointer:
			if off+2 > len(msg) {
				return -1
			}
			return off + 2
		case size > maxLabel:
			return -1
		}
		off += 1 + size
	}
	return -1
}

// checkName returns the offset behind the name at off, or -1 when the name
// leaves the message, is longer than 255 octets, or has a pointer that does
// not lead strictly backwards (RFC 9267 section 2), so that no name loops and
// none takes more than a bounded number of steps.
func checkName(msg []byte, off int) int {
	end, length, jumps := -1, 0, 0
	floor := off
	for off < len(msg) {
		size := int(msg[off])
		switch {
		case size == 0:
			if end < 0 {
				end = off + 1
			}
			return end
		case size >= pointer:
			if off+2 > len(msg) {
				return -1
			}
			target := (size&^pointer)<<8 | int(msg[off+1])
			if jumps++; jumps > maxJumps || target < HeaderLen || target >= floor {
				return -1
			}
			if end < 0 {
				end = off + 2
			}
			off, floor = target, target
			continue
		case size > maxLabel:
			return -1
		}
		if length += 1 + size; length >= maxName {
			return -1
		}
		off += 1 + size
	}
	return -1
}

// foldName turns the letters of an uncompressed wire-form name to lower case.
// Length octets are below 'A' and need no care.
func foldName(name []byte) {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c | 0x20
		}
	}
}

// equalFold reports whether a and b are equal but for the case of ASCII
// letters.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if d := b[i]; c != d && (c|0x20 != d|0x20 || !isLetter(c)) {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { c |= 0x20; return 'a' <= c && c <= 'z' }

// Randomize0x20 flips the case of the letters of a wire-form name by the bits
// of rnd, so that a forger has to guess them too
// (draft-vixie-dnsext-dns0x20). A name may have up to 252 letters: letters
// beyond the bits given keep their case.
func Randomize0x20(name []byte, rnd []byte) {
	bit := 0
	for i, c := range name {
		if !isLetter(c) {
			continue
		}
		if bit >= 8*len(rnd) {
			return
		}
		if rnd[bit/8]>>(bit%8)&1 != 0 {
			name[i] = c ^ 0x20
		}
		bit++
	}
}
