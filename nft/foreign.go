package nft

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sys/unix"
)

// Chain is a chain of somebody else's table, as nft names it.
type Chain struct{ Family, Table, Name string }

// Foreign returns the chains of this network namespace that are not ours,
// sorted. By their names an administrator knows whose they are.
func (t *Table) Foreign(ctx context.Context) ([]Chain, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []Chain
	err := t.marks.dumpAll(unix.NFT_MSG_GETCHAIN, func() { all = nil }, func(family uint8, b []byte) {
		c := Chain{Family: familyName(family), Table: text(find(b, unix.NFTA_CHAIN_TABLE)), Name: text(find(b, unix.NFTA_CHAIN_NAME))}
		if c.Family != "" && c.Table != TableName {
			all = append(all, c)
		}
	})
	slices.SortFunc(all, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	return all, explain("reading the chains of others", err)
}
