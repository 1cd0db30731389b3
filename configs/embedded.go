package configs

import (
	"embed"
	"io/fs"
)

//go:embed reference.toml
var reference string

//go:embed units examples
var files embed.FS

// Reference returns the manual of the file: every key with its default, and
// examples that are commented out. It parses to the defaults.
func Reference() string { return reference }

// Files returns what is shipped beside the program: units/smartdns.service,
// examples/host.toml and examples/gateway.toml.
func Files() fs.FS { return files }
