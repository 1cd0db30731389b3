package configs

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
)

// Pin is the SHA-256 of a server's public key.
type Pin [sha256.Size]byte

// String returns the pin in base64, as openssl and others print it.
func (p Pin) String() string { return base64.StdEncoding.EncodeToString(p[:]) }

func parsePin(s string) (Pin, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != sha256.Size {
		return Pin{}, errors.New("a pin is the SHA-256 of the server's public key in base64: 44 characters, the last of them =")
	}
	return Pin(b), nil
}
