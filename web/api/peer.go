package api

import (
	"net/netip"
	"time"
)

// FarEnds is what `smartdns peer list --json` prints.
type FarEnds struct {
	Schema  int      `json:"schema"`
	FarEnds []FarEnd `json:"far_ends"`
}

// FarEnd is a WireGuard link whose clients go out by this host.
type FarEnd struct {
	Name      string      `json:"name"` // of the link
	File      string      `json:"file"`
	Up        bool        `json:"up"`
	Device    string      `json:"device,omitempty"` // "kernel" or "userspace"
	PID       int         `json:"pid,omitempty"`    // of the process that runs it
	PublicKey string      `json:"public_key"`
	Port      uint16      `json:"port,omitempty"`
	Clients   []FarClient `json:"clients"`
}

// FarClient is one peer of a far end.
type FarClient struct {
	Name       string         `json:"name,omitempty"`
	PublicKey  string         `json:"public_key"`
	AllowedIPs []netip.Prefix `json:"allowed_ips"`
	Endpoint   string         `json:"endpoint,omitempty"`
	Handshake  *time.Time     `json:"handshake,omitempty"`
	Received   int64          `json:"received"` // bytes, by this host
	Sent       int64          `json:"sent"`
}
