package daemon

import (
	"fmt"

	"smartdns/resolver"
	"smartdns/web/api"
)

// loopConditions says which servers send our own questions back to us.
func loopConditions(loops []resolver.ForwardingLoop) []api.Condition {
	var all []api.Condition
	for _, l := range loops {
		all = append(all, api.Condition{
			Severity: severityError, Since: l.Since,
			What: fmt.Sprintf("a forwarding loop: %s of the %s side sends our questions back to us, they come from %s", l.Server, l.Side, l.From),
			Fix:  fmt.Sprintf("let that server ask others than us, or name another one in servers of [side.%s]", l.Side),
		})
	}
	return all
}
