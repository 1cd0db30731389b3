package configs

import (
	"slices"

	"smartdns/routing"
)

// converter turns raw tables into typed ones. What it cannot turn goes to the
// problems; the Config is then not used.
type converter struct {
	*problems
	raw *rawConfig
}

func convert(p *problems, raw *rawConfig) *Config {
	c := converter{p, raw}
	cfg := &Config{
		Listen:  c.listen(raw.Listen),
		Tunnels: c.tunnels(raw.Tunnel),
		Lists:   c.lists(raw.List),
		Geo:     c.geo(raw.Geo),
		Poison:  c.poison(raw.Poison),
		Cache:   c.cache(raw.Cache),
		Marks:   c.marks(raw.Marks),
		Routing: c.routing(raw.Routing),
	}
	cfg.Sides = c.sides(raw.Side, slices.Concat(cfg.Listen.DNS, cfg.Listen.DoT, cfg.Listen.DoH))
	cfg.Decide = c.decide(raw.Decide)
	c.checkHome(cfg)
	cfg.Records = c.records(raw.Records)
	cfg.DNS64 = c.dns64(raw.DNS64)
	c.checkMode(cfg)
	c.checkStrict(cfg)
	c.checkGateway(cfg)
	return cfg
}

// firstTunnel returns the path that a missing key means: through the first
// tunnel of the file, or direct where there is none.
func (c converter) firstTunnel() routing.Path {
	if len(c.raw.Tunnel) == 0 {
		return routing.Direct
	}
	return routing.Path(c.raw.Tunnel[0].name)
}

// via reads a path: direct, or a tunnel of the file.
func (c converter) via(raw rawString, fallback routing.Path) routing.Path {
	names := tableNames(c.raw.Tunnel)
	switch {
	case !raw.given():
		return fallback
	case raw.value == string(routing.Direct), slices.Contains(names, raw.value):
		return routing.Path(raw.value)
	case len(names) == 0:
		c.addf(raw.place, "no tunnel %s (there is none; add [tunnel.%s] or write \"direct\")", quote(raw.value), tomlKey(withoutPassword(raw.value)))
	default:
		c.addf(raw.place, "no tunnel %s (%s)", quote(raw.value), thereAre(names))
	}
	return fallback
}

// word reads one of a few words.
func word[T ~string](c converter, raw rawString, fallback T, others ...T) T {
	if !raw.given() {
		return fallback
	}
	words := []string{string(fallback)}
	for _, o := range others {
		words = append(words, string(o))
	}
	if !slices.Contains(words, raw.value) {
		c.addf(raw.place, "no such value %s: it is %s", quote(raw.value), oneOf(words))
		return fallback
	}
	return T(raw.value)
}

func tableNames[T any](tables []table[T]) []string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.name
	}
	return names
}
