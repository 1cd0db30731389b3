package configs

import (
	"path/filepath"
	"strings"

	"smartdns/routing"
)

func (c converter) tunnels(raw named[rawTunnel]) []Tunnel {
	var all []Tunnel
	owner := make(map[string]string) // of each wg-quick file
	for i, t := range raw {
		if i == routing.MaxTunnels {
			c.addf(t.place, "is one too many: there can be %d tunnels", routing.MaxTunnels)
		}
		switch err := checkInterface(t.name); {
		case err != nil:
			c.valuef(rawString{t.place, t.name}, err)
		case isReserved(t.name) || t.name == string(WhenDownBlock) || t.name == ListCNDomains:
			c.addf(t.place, "%s is a word of ours: call the interface otherwise, e.g. wg0", t.name)
		case !isWord(t.name):
			c.addf(t.place, "the name of a tunnel is %s", wordRule)
		}
		path := "/etc/wireguard/" + t.name + ".conf"
		at := t.place
		if t.body.Config.given() {
			path, at = c.path(t.body.Config), t.body.Config.place
		}
		if other, taken := owner[path]; taken && path != "" {
			c.addf(at, "%s is the file of [tunnel.%s] already", quote(path), tomlKey(other))
		}
		owner[path] = t.name
		all = append(all, Tunnel{
			Path:      routing.Path(t.name),
			Config:    path,
			Device:    word(c, t.body.Device, DeviceAuto, DeviceKernel, DeviceUserspace),
			WhenDown:  c.whenDown(t.name, t.body.WhenDown),
			Inbound:   word(c, t.body.Inbound, InboundBlock, InboundAllow),
			Translate: word(c, t.body.Translate, TranslateAll, TranslatePublic),
			Hooks:     t.body.Hooks.or(false),
			Pos:       c.pos(t.place),
		})
	}
	c.checkStandIns(raw)
	return all
}

// path reads the path of a file. A relative one would mean something else for
// each directory that the program is started from.
func (c converter) path(raw rawString) string {
	if !filepath.IsAbs(raw.value) || strings.ContainsRune(raw.value, 0) {
		c.addf(raw.place, "%s: write the whole path, beginning with /", quote(raw.value))
		return ""
	}
	return filepath.Clean(raw.value)
}
