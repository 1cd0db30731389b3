package cache

import "encoding/binary"

// A key is flags, the length of the side's name, that name, the asked name in
// wire form and lower case, its type.
const (
	keyDO = 1
	keyCD = 2
)

// AppendKey appends the key of a question of class IN that one side answers:
// the wire question with its name in lower case, and the flags that change an
// answer.
func AppendKey(dst []byte, side string, question []byte, do, cd bool) []byte {
	flags := byte(0)
	if do {
		flags |= keyDO
	}
	if cd {
		flags |= keyCD
	}
	dst = append(dst, flags, byte(len(side)))
	dst = append(dst, side...)
	// Length octets are at most 63, so that they are never taken for letters.
	end := max(0, len(question)-4)
	for _, b := range question[:end] {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	return append(dst, question[end:max(end, len(question)-2)]...)
}

// Key is what AppendKey made a key of.
type Key struct {
	Side   string
	Name   []byte // in wire form
	Type   uint16
	DO, CD bool
}

// ParseKey reads a key; ok is false when it is none. Name aliases key.
func ParseKey(key []byte) (k Key, ok bool) {
	if len(key) < 2 || len(key) < 2+int(key[1])+3 {
		return Key{}, false
	}
	name := 2 + int(key[1])
	end := len(key) - 2
	return Key{
		Side: string(key[2:name]), Name: key[name:end], Type: binary.BigEndian.Uint16(key[end:]),
		DO: key[0]&keyDO != 0, CD: key[0]&keyCD != 0,
	}, true
}
