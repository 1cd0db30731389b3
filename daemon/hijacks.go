package daemon

import (
	"fmt"
	"slices"
	"strings"

	"smartdns/resolver"
	"smartdns/web/api"
)

// hijackConditions says which servers answer names that do not exist.
func hijackConditions(hijacks []resolver.Hijack) []api.Condition {
	var all []api.Condition
	for _, h := range hijacks {
		addrs := make([]string, len(h.Addrs))
		for i, a := range h.Addrs {
			addrs[i] = a.String()
		}
		slices.Sort(addrs)
		all = append(all, api.Condition{
			Severity: severityWarning, Since: h.Since,
			What: fmt.Sprintf("%s of the %s side answers names that do not exist with %s: that counts as no such name", h.Server, h.Side, strings.Join(addrs, " and ")),
			Fix:  fmt.Sprintf("name another server in servers of [side.%s]; or this network wants you to sign in first", h.Side),
		})
	}
	return all
}
