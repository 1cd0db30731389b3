// Package conformance asks a running smartdns, over real sockets in a network
// namespace of its own, what other programs and hostile peers would ask it.
// Everything in it is a test.
package conformance
