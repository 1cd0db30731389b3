package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"smartdns/routing/wg"
)

// TunnelFile is what we make of a wg-quick file. It holds no secret.
type TunnelFile struct {
	Path     string
	Honoured []string // what is applied
	Ignored  []string // what is not, with its place and the reason
}

// ReadTunnelFile reads the wg-quick file at path. The error joins what is wrong
// with it, each with its line.
func ReadTunnelFile(path string) (TunnelFile, error) {
	c, err := wg.ParseFile(path)
	if err != nil {
		return TunnelFile{}, err
	}
	t := TunnelFile{Path: path, Honoured: []string{"PrivateKey (its public key is " + c.PrivateKey.PublicKey().String() + ")"}}
	say := func(format string, args ...any) { t.Honoured = append(t.Honoured, fmt.Sprintf(format, args...)) }
	if len(c.Addresses) > 0 {
		say("Address %s", prefixList(c.Addresses))
	}
	if c.MTU > 0 {
		say("MTU %d", c.MTU)
	}
	if c.ListenPort > 0 {
		say("ListenPort %d", c.ListenPort)
	}
	for _, p := range c.Peers {
		say("%s", peerText(p))
	}
	for _, n := range slices.Concat(c.Notes(), c.HookNotes()) {
		t.Ignored = append(t.Ignored, n.String())
	}
	if len(c.Peers) > 0 && !carriesAll(c) {
		t.Ignored = append(t.Ignored, c.File+": no AllowedIPs has 0.0.0.0/0 or ::/0: what [decide] addresses sends into the tunnel beyond them ends there")
	}
	return t, nil
}

func peerText(p wg.Peer) string {
	text := "Peer " + p.PublicKey.Short()
	if e := p.Endpoint.String(); e != "" {
		text += " at " + e
	}
	if len(p.AllowedIPs) > 0 {
		text += ", AllowedIPs " + prefixList(p.AllowedIPs)
	}
	if !p.PresharedKey.IsZero() {
		text += ", PresharedKey"
	}
	if p.Keepalive > 0 {
		text += fmt.Sprintf(", PersistentKeepalive %d", int(p.Keepalive.Seconds()))
	}
	return text
}

// prefixList is the first of many prefixes.
func prefixList(all []netip.Prefix) string {
	const most = 4
	var out []string
	for _, p := range all[:min(len(all), most)] {
		out = append(out, p.String())
	}
	text := strings.Join(out, ", ")
	if n := len(all) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// carriesAll reports whether some peer takes every address of a family, be it in
// two halves.
func carriesAll(c *wg.Config) bool {
	return slices.ContainsFunc(c.Peers, func(p wg.Peer) bool {
		return slices.ContainsFunc(p.AllowedIPs, func(a netip.Prefix) bool { return a.Bits() <= 1 })
	})
}
