package wg

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// WritePrivateKey writes a new private key to w, in base64 and with a newline,
// as wg genkey does. w is the only place that it is ever readable at.
func WritePrivateKey(w io.Writer) error {
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return fmt.Errorf("making a private key: %w", err)
	}
	return writeKey(w, k)
}

// WritePresharedKey writes a new preshared key to w, as wg genpsk does.
func WritePresharedKey(w io.Writer) error {
	k, err := wgtypes.GenerateKey()
	if err != nil {
		return fmt.Errorf("making a preshared key: %w", err)
	}
	return writeKey(w, k)
}

// WritePublicKey reads a private key from r, which holds nothing else but white
// space, and writes its public half to w, as wg pubkey does. The error never
// quotes what was read.
func WritePublicKey(w io.Writer, r io.Reader) error {
	const most = 4 << 10 // a key and its white space
	text, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return fmt.Errorf("reading the private key: %w", err)
	}
	word := strings.TrimSpace(string(text))
	if word == "" {
		return errors.New("no private key on standard input: write smartdns pubkey < FILE, or smartdns genkey | smartdns pubkey")
	}
	k, err := parseKey(word)
	if err != nil {
		return fmt.Errorf("standard input is %w", err)
	}
	return writeKey(w, wgtypes.Key(k).PublicKey())
}

func writeKey(w io.Writer, k wgtypes.Key) error {
	if _, err := io.WriteString(w, k.String()+"\n"); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	return nil
}
