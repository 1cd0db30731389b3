package nft

import (
	"context"

	"golang.org/x/sys/unix"
)

// Attributes of a flowtable, from linux/netfilter/nf_tables.h.
const (
	flowtableTable = 1 // NFTA_FLOWTABLE_TABLE
	flowtableName  = 2 // NFTA_FLOWTABLE_NAME
)

// Flowtables returns the flowtables of this network namespace, as nft names
// them: "inet fw4 ft". What they carry meets no other chain after its first
// packets.
func (t *Table) Flowtables(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []string
	err := t.marks.dumpAll(unix.NFT_MSG_GETFLOWTABLE, func() { all = nil }, func(family uint8, b []byte) {
		all = append(all, familyName(family)+" "+text(find(b, flowtableTable))+" "+text(find(b, flowtableName)))
	})
	return all, explain("reading the flowtables of others", err)
}
