package wg

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
)

// keyLen is the length of every WireGuard key, in bytes.
const keyLen = 32

// hidden is what a secret prints as; wg(8) says the same.
const hidden = "(hidden)"

// PublicKey names a peer. It is no secret.
type PublicKey [keyLen]byte

// String returns k in base64, as wg(8) prints it.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Short returns the first characters of k, enough to tell peers apart.
func (k PublicKey) Short() string { return k.String()[:4] + "…" }

// Secret is a private or a preshared key. Every way of printing, logging or
// encoding it yields "(hidden)"; only this package can read it. The zero Secret
// is no key.
type Secret struct{ key [keyLen]byte }

// IsZero reports whether s is no key.
func (s Secret) IsZero() bool { return s == Secret{} }

// PublicKey returns the public half of the private key s.
func (s Secret) PublicKey() PublicKey {
	k, err := ecdh.X25519().NewPrivateKey(s.key[:])
	if err != nil {
		panic(err) // only for a wrong length, and that is fixed
	}
	return PublicKey(k.PublicKey().Bytes())
}

func (s Secret) String() string { return hidden }

// Format hides s from every verb, %x and %#v included.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText hides s from every encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides s from every slog handler.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// clamped returns s as every implementation stores a private key, so that what
// we want and what a device shows can be compared.
func (s Secret) clamped() Secret {
	if s.IsZero() {
		return s
	}
	s.key[0] &= 248
	s.key[31] = s.key[31]&127 | 64
	return s
}

// errKey never quotes its input: people paste private keys into the wrong line.
var errKey = errors.New("not a WireGuard key (want 44 base64 characters, the last a \"=\")")

func parseKey(text string) ([keyLen]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != keyLen {
		return [keyLen]byte{}, errKey
	}
	return [keyLen]byte(b), nil
}

// keyLike matches what might be a key, in base64 or in hexadecimal, or a good
// part of one.
var keyLike = regexp.MustCompile(`[A-Za-z0-9+/]{24,}=*`)

// redact hides everything in text that might be a key.
func redact(text string) string { return keyLike.ReplaceAllString(text, hidden) }

// quote returns value for an error message: short, on one line, without
// anything that might be a key.
func quote(value string) string {
	const most = 60
	value = redact(value)
	if len(value) > most {
		value = value[:most] + "…"
	}
	return fmt.Sprintf("%q", value)
}
