package wg

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"smartdns/internal/wholefile"
)

// Running is what the link of a tunnel shows.
type Running struct {
	Addresses []netip.Prefix
	MTU       int
}

// Save writes the running configuration of the device called name into its
// wg-quick file, as `wg-quick save` does, replacing it whole with mode 0600.
// Unlike that it keeps the lines that are comments, the names of endpoints, and
// FwMark: what the device carries is ours. It changes nothing on an error.
func Save(path, name string, link Running) error {
	config, err := ParseFile(path)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the tunnel's file: %w", err)
	}
	client, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("tunnel %s: opening WireGuard control: %w", name, err)
	}
	defer client.Close()
	device, err := client.Device(name)
	if err != nil {
		return fmt.Errorf("tunnel %s: reading the device: %w", name, err)
	}
	text := savedText(config, string(old), device, link)
	if _, err := Parse(strings.NewReader(text), config.File); err != nil {
		return fmt.Errorf("saving %s: what runs is no valid file: %w", path, err)
	}
	if bytes.Equal(old, []byte(text)) {
		return nil
	}
	if err := wholefile.ReplaceBytes(path, []byte(text)); err != nil {
		return fmt.Errorf("saving %s: %w", path, err)
	}
	return nil
}

// savedText is the file of a running device.
func savedText(c *Config, old string, d *wgtypes.Device, link Running) string {
	said := commentsOf(old)
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	b.WriteString(said.head)
	b.WriteString("[Interface]\n" + said.of[sectionInterface])
	for _, a := range link.Addresses {
		line("Address", a)
	}
	if entries := dnsEntries(c); entries != "" {
		line("DNS", entries)
	}
	if c.MTU > 0 {
		line("MTU", link.MTU)
	}
	if c.Quick.Table != "" {
		line("Table", c.Quick.Table)
	}
	if c.Quick.SaveConfig {
		line("SaveConfig", true)
	}
	for _, h := range c.Quick.Hooks {
		line(h.Key, string(h.Command))
	}
	if d.ListenPort != 0 {
		line("ListenPort", d.ListenPort)
	}
	if c.Quick.FwMark != 0 {
		line("FwMark", fmt.Sprintf("%#x", c.Quick.FwMark))
	}
	line("PrivateKey", d.PrivateKey)
	for _, p := range d.Peers {
		b.WriteString("\n")
		savePeer(&b, c, said, p)
	}
	b.WriteString(said.tail)
	return b.String()
}

func savePeer(b *strings.Builder, c *Config, said comments, p wgtypes.Peer) {
	line := func(key string, value any) { fmt.Fprintf(b, "%s = %v\n", key, value) }
	b.WriteString(said.before[p.PublicKey.String()])
	b.WriteString("[Peer]\n" + said.of[p.PublicKey.String()])
	line("PublicKey", p.PublicKey)
	if (p.PresharedKey != wgtypes.Key{}) {
		line("PresharedKey", p.PresharedKey)
	}
	var allowed []string
	for _, a := range fromNets(p.AllowedIPs) {
		allowed = append(allowed, a.String())
	}
	if len(allowed) > 0 {
		line("AllowedIPs", strings.Join(allowed, ", "))
	}
	endpoint := ""
	if a := fromUDP(p.Endpoint); a.IsValid() {
		endpoint = a.String()
	}
	for _, was := range c.Peers {
		if was.PublicKey == PublicKey(p.PublicKey) && was.Endpoint.IsName() {
			endpoint = was.Endpoint.String()
		}
	}
	if endpoint != "" {
		line("Endpoint", endpoint)
	}
	if p.PersistentKeepaliveInterval > 0 {
		line("PersistentKeepalive", int(p.PersistentKeepaliveInterval/time.Second))
	}
}

func dnsEntries(c *Config) string {
	var all []string
	for _, a := range c.DNS {
		all = append(all, a.String())
	}
	return strings.Join(append(all, c.Search...), ", ")
}

// comments are the lines of a file that are nothing else, by where they stand.
type comments struct {
	head, tail string
	of, before map[string]string // by public key; of the interface by its word
}

// commentsOf gathers them. What stands right before the header of a section
// belongs to that.
func commentsOf(text string) comments {
	c := comments{of: map[string]string{}, before: map[string]string{}}
	var section, pending, between string
	key := ""
	flush := func() {
		if section == sectionInterface {
			c.of[sectionInterface] += pending
		} else if key != "" {
			c.of[key] += pending
		}
		pending = ""
	}
	waiting := "" // stood before the present peer's header
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
			between += line + "\n"
		case strings.HasPrefix(line, "["):
			flush()
			if section == "" {
				c.head += between
			} else {
				waiting = between
			}
			between, key = "", ""
			section = sectionPeer
			if strings.EqualFold(strings.TrimSpace(strings.Split(line, "#")[0]), "[Interface]") {
				section = sectionInterface
			}
		case line != "":
			pending += between
			between = ""
			if section == sectionPeer && strings.EqualFold(strings.TrimSpace(name), "PublicKey") {
				value, _, _ = strings.Cut(value, "#")
				key = strings.TrimSpace(value)
				c.before[key], waiting = waiting, ""
			}
		}
	}
	flush()
	c.tail = between
	return c
}
