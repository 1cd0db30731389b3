package configs

import "github.com/pelletier/go-toml/v2/unstable"

// rawServers is a list of servers, each a string or a table.
type rawServers struct {
	place
	items []table[rawServer]
}

func (r *rawServers) take(p *problems, n *node, at place) {
	r.place = at
	if n.kind != unstable.Array {
		if n.kind == unstable.String {
			p.addf(at, "want a list, got a string: write [%s]", quote(n.text))
		} else {
			p.addf(at, "want a list of servers, got %s", kindOf(n))
		}
		r.bad = true
		return
	}
	for i, item := range n.items {
		t := table[rawServer]{place: at.item(i, item.line)}
		switch item.kind {
		case unstable.Table:
			t.bad = !takeTable(p, item, t.key, &t.body)
		default:
			t.body.Server.take(p, item, t.place)
			t.bad = t.body.Server.bad
		}
		r.bad = r.bad || t.bad
		r.items = append(r.items, t)
	}
}
