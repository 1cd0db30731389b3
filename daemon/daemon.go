// Package daemon compiles a Config into the parts, wires them, runs them and
// reports how they are.
package daemon

import (
	"log/slog"
)

// Where things are unless a flag says otherwise.
const (
	DefaultConfig   = "/etc/smartdns/smartdns.toml"
	DefaultRunDir   = "/run/smartdns"
	DefaultStateDir = "/var/lib/smartdns"
	SocketName      = "control.sock" // in the run directory
)

// Dirs are the directories that are ours.
type Dirs struct {
	Run   string // the control socket; gone after a reboot
	State string // what is kept over restarts
}

// Options is what every entry of this package needs.
type Options struct {
	Config  string // the file; "" means DefaultConfig, or the embedded defaults where that is not there
	Dirs    Dirs
	Version string
	Log     *slog.Logger
	Clock   Clock // nil: this host's
}
