package configs

// checkStrict says what would leave past a kill switch.
func (c converter) checkStrict(cfg *Config) {
	at := c.raw.Routing.Strict.place
	if !cfg.Routing.Strict {
		return
	}
	switch {
	case cfg.Routing.Mode == ModeOff:
		c.addf(at, `true locks what we route, but mode = "off": choose another mode, or write strict = false`)
	case len(cfg.Tunnels) == 0:
		c.addf(at, "true needs a tunnel: add [tunnel.wg0]")
	}
	if cfg.Routing.Table == TableShared {
		c.addf(c.raw.Routing.Table.place, `"shared" lets others flush the table that strict = true locks with: write "owned"`)
	}
	for i, t := range cfg.Tunnels {
		if t.WhenDown == WhenDownDirect {
			c.addf(c.raw.Tunnel[i].body.WhenDown.place, `"direct" lets out what strict = true keeps in: write "block", or strict = false`)
		}
	}
}
