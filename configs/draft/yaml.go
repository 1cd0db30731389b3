package draft

import (
	"iter"

	"go.yaml.in/yaml/v3"
)

// resolved is n, or what it is an alias of.
func resolved(n *yaml.Node) *yaml.Node {
	for range 8 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// pairs returns the keys and values of a mapping, in order.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, v *yaml.Node) bool) {
		n = resolved(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if v := resolved(n.Content[i+1]); v != nil && !yield(n.Content[i], v) {
				return
			}
		}
	}
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	for k, v := range pairs(n) {
		if k.Value == key {
			return v
		}
	}
	return nil
}

// text returns the value of a key of a mapping; "" for what is no scalar.
func text(n *yaml.Node, key string) string {
	if v := child(n, key); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// scalars returns a scalar, or those of a list.
func scalars(n *yaml.Node) []*yaml.Node {
	n = resolved(n)
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		return nil
	}
	var all []*yaml.Node
	for _, x := range n.Content {
		if x = resolved(x); x != nil && x.Kind == yaml.ScalarNode {
			all = append(all, x)
		}
	}
	return all
}
