package upstream_test

import (
	"testing"

	"smartdns/resolver/upstream"
)

// A drained server answers what it was asked, and then loses its connection at
// once instead of when that has been unused for long enough.
func TestDrainedConnectionsEndWithTheirLastReply(t *testing.T) {
	begun, drained, closed := make(chan bool), make(chan bool), make(chan bool)
	f := serve(t, nil, func(c *conn) {
		q := c.query()
		begun <- true
		<-drained
		c.send(reply(q, right))
		if c.query() == nil {
			close(closed)
		}
	})
	ex := overTCP(t, f)
	got := make(chan error, 1)
	go func() {
		_, err := ex.Exchange(testContext(t), query(asked))
		got <- err
	}()
	<-begun
	upstream.Drain(ex)
	close(drained)
	if err := <-got; err != nil {
		t.Errorf("a query on its way: %v", err)
	}
	select {
	case <-closed:
	case <-testContext(t).Done():
		t.Error("the connection is still open")
	}
}

// A side that somebody still holds when it is drained answers as before.
func TestDrainedServersAnswer(t *testing.T) {
	f := serve(t, truthUDP, truthTCP)
	for _, c := range []upstream.Config{
		{Scheme: "tcp", Where: upstream.At(f.addr), Dial: dial},
		{Scheme: "udp", Where: upstream.At(f.addr), Dial: dial},
	} {
		ex := newServer(t, c)
		group := upstream.Group([]upstream.Exchanger{ex, ex}, upstream.InOrder)
		want(t, group, query(asked), right)
		upstream.Drain(group)
		want(t, group, query(asked), right)
	}
}
