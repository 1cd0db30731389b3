package main

import "flag"

var full = flag.Bool("full", false, "show the rows of lab/conformance/README.md as large as they are written, which takes hours")

// sized is how much of a row is shown: some of it, or with -full all.
func sized[T any](some, all T) T {
	if *full {
		return all
	}
	return some
}
