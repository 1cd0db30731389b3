package nft_test

import (
	"testing"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// Until the rules decide, the LAN begins no flow that leaves; queries to us are
// answered all the same: a datagram is not sent twice for nothing.
func TestQueriesPassBeforeTheRulesDecide(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 53)
	netnstest.Do(t, w.gw, func() {
		table, err := nft.Open(t.Context(), nft.Options{Mode: nft.Shared})
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		if err := nft.Awaken(table, gateway()); err != nil {
			t.Error(err)
			return
		}
		w.want("a query to us", w.ask(w.lan, "udp", "192.168.8.1:53"), "192.168.8.20")
		w.want("a query past us", w.ask(w.lan, "udp", foreign4+":80"), "silence")
	})
}
