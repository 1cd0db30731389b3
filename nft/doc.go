// Package nft keeps our nftables table: which flows go which way, and the
// addresses that decide it.
//
// A [Ruleset] is a pure value that prints as nft -f text. A [Table] brings the
// kernel to it in one transaction, a [Marker] adds addresses to it at run time,
// and a [Ledger] knows which marks live until when. The package knows nothing
// about names.
package nft
