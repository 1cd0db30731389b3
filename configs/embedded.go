package configs

import _ "embed"

//go:embed reference.toml
var reference string

// Reference returns the manual of the file: every key with its default, and
// examples that are commented out. It parses to the defaults.
func Reference() string { return reference }
