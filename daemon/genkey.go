package daemon

import (
	"io"

	"smartdns/routing/wg"
)

// WritePrivateKey writes a new WireGuard private key to w, as wg genkey does.
func WritePrivateKey(w io.Writer) error { return wg.WritePrivateKey(w) }

// WritePresharedKey writes a new preshared key to w, as wg genpsk does.
func WritePresharedKey(w io.Writer) error { return wg.WritePresharedKey(w) }

// WritePublicKey reads a private key from r and writes its public half to w, as
// wg pubkey does.
func WritePublicKey(w io.Writer, r io.Reader) error { return wg.WritePublicKey(w, r) }
