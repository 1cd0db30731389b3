package configs

import "smartdns/routing"

// mode reads what decides about ways.
func (c converter) mode() RoutingMode {
	return word(c, c.raw.Routing.Mode, ModeMark, ModeRoutes, ModeAll, ModeOff)
}

// modeIs reports whether the file says m, without a word about a bad value.
func (c converter) modeIs(m RoutingMode) bool { return c.raw.Routing.Mode.value == string(m) }

// checkMode says what does not go together with the mode.
func (c converter) checkMode(cfg *Config) {
	at, mode := c.raw.Routing.Mode.place, cfg.Routing.Mode
	if mode != ModeRoutes && mode != ModeAll {
		return
	}
	if len(cfg.Tunnels) == 0 {
		c.addf(at, "%s needs a tunnel: add [tunnel.wg0]", quote(string(mode)))
		return
	}
	for i, line := range c.raw.Decide.Names.items {
		if line.body.Via.given() {
			c.addf(line.body.Via.place, `with [routing] mode = %q no answer marks an address, so names[%d] cannot say its path: write a line in addresses, or mode = "mark"`, mode, i)
		}
	}
	rules := cfg.Decide.Addresses
	if mode != ModeAll || len(rules) == 0 {
		return
	}
	if last := rules[len(rules)-1]; last.Via == routing.Direct {
		c.addf(at, `"all" sends everything into a tunnel, but the last line of [decide] addresses says via = "direct": name the tunnel there`)
	}
}
