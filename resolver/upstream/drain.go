package upstream

// drainer is an Exchanger that keeps connections.
type drainer interface{ drain() }

// Drain lets the connections that ex keeps take no new queries: each closes
// after its last reply. It is for an Exchanger that nobody will ask again; one
// that is asked all the same opens others, which close when they are unused.
func Drain(ex Exchanger) {
	if d, ok := ex.(drainer); ok {
		d.drain()
	}
}

func (g *group) drain() {
	for _, m := range g.members {
		Drain(m.Exchanger)
	}
}

func (s *keptServer) drain() { s.kept.drain() }

func (s *udpServer) drain() {
	s.pool.drain()
	s.fresh.drain()
	if s.shared != nil {
		s.shared.drain()
	}
}

func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		s.retire()
	}
	p.streams = nil
}

func (k *freshSockets) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.waiting {
		s.Conn.Close()
	}
	k.waiting, k.least, k.drained = nil, 0, true
}

func (k *sharedSockets) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.all {
		s.retire()
	}
	k.all = nil
}

func (k *sessions) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil {
		k.now.retire()
		k.now = nil
	}
}
