package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"smartdns/routing"
)

// step is one change to the device. It prints as the wg(8) or ip(8) command
// that would make it, with "(hidden)" where a secret stands.
type step struct {
	text   string
	config wgtypes.Config // holds secrets
}

func (s step) String() string { return s.text }

// Format prints the command for every verb, so that no %#v shows a key.
func (s step) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.text) }

// desired is what a device should be.
type desired struct {
	name   string
	config *Config
	mark   uint32 // of its packets
	// called is where each peer is to be called: its literal endpoint, or what
	// SetEndpoint last chose.
	called map[PublicKey]netip.AddrPort
}

// given is what we last gave a device and what it may rightly show otherwise.
type given struct {
	// endpoint of each peer: another one is where the peer roamed to, and stays.
	endpoint map[PublicKey]netip.AddrPort
	// port: none is what the userspace device shows of one it has bound where
	// the kernel has no IPv6.
	port int
}

// diff returns the steps from have to w.
func (w desired) diff(have *wgtypes.Device, last given) []step {
	var steps []step
	if s, ok := w.diffDevice(have, last.port); ok {
		steps = append(steps, s)
	}
	shown := make(map[PublicKey]wgtypes.Peer, len(have.Peers))
	for _, p := range have.Peers {
		shown[PublicKey(p.PublicKey)] = p
	}
	for _, p := range w.config.Peers {
		h, ok := shown[p.PublicKey]
		delete(shown, p.PublicKey)
		if !ok {
			steps = append(steps, w.addPeer(p))
		} else if !w.called[p.PublicKey].IsValid() && last.endpoint[p.PublicKey].IsValid() {
			// Its endpoint is another name now, and nothing else forgets the old.
			steps = append(steps, w.renewPeer(p))
		} else if s, ok := w.diffPeer(p, h, last.endpoint[p.PublicKey]); ok {
			steps = append(steps, s)
		}
	}
	for _, p := range have.Peers { // in the device's order
		if _, ok := shown[PublicKey(p.PublicKey)]; ok {
			steps = append(steps, w.removePeer(PublicKey(p.PublicKey)))
		}
	}
	return steps
}

func (w desired) diffDevice(have *wgtypes.Device, lastPort int) (step, bool) {
	var c wgtypes.Config
	words := []string{"wg set", w.name}
	if port := int(w.config.ListenPort); port != 0 && port != have.ListenPort && (have.ListenPort != 0 || port != lastPort) {
		c.ListenPort = &port
		words = append(words, "listen-port", strconv.Itoa(port))
	}
	if mark := int(w.mark); mark != have.FirewallMark {
		c.FirewallMark = &mark
		words = append(words, "fwmark", fmt.Sprintf("%#x", mark))
	}
	if key := wgtypes.Key(w.config.PrivateKey.clamped().key); key != have.PrivateKey {
		c.PrivateKey = &key
		words = append(words, "private-key", hidden)
	}
	return step{strings.Join(words, " "), c}, len(words) > 2
}

// addPeer makes the whole peer.
func (w desired) addPeer(p Peer) step {
	s, _ := w.diffPeer(p, wgtypes.Peer{}, netip.AddrPort{})
	c := &s.config.Peers[0]
	c.UpdateOnly = false
	c.ReplaceAllowedIPs = true
	return s
}

// diffPeer changes an existing peer, and nothing of it that is as it should be.
func (w desired) diffPeer(p Peer, have wgtypes.Peer, applied netip.AddrPort) (step, bool) {
	c := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.PublicKey), UpdateOnly: true}
	words := []string{"wg set", w.name, "peer", p.PublicKey.String()}
	if psk := wgtypes.Key(p.PresharedKey.key); psk != have.PresharedKey {
		c.PresharedKey = &psk
		file := hidden
		if p.PresharedKey.IsZero() {
			file = "/dev/null" // wg(8): removes it
		}
		words = append(words, "preshared-key", file)
	}
	if to := w.called[p.PublicKey]; to.IsValid() && (have.Endpoint == nil || to != applied) {
		c.Endpoint = toUDP(to)
		words = append(words, "endpoint", to.String())
	}
	if p.Keepalive != have.PersistentKeepaliveInterval {
		c.PersistentKeepaliveInterval = &p.Keepalive
		words = append(words, "persistent-keepalive", strconv.Itoa(int(p.Keepalive/time.Second)))
	}
	if !slices.Equal(p.AllowedIPs, fromNets(have.AllowedIPs)) {
		c.ReplaceAllowedIPs = true
		c.AllowedIPs = toNets(p.AllowedIPs)
		words = append(words, "allowed-ips", joinPrefixes(p.AllowedIPs))
	}
	return step{strings.Join(words, " "), wgtypes.Config{Peers: []wgtypes.PeerConfig{c}}}, len(words) > 4
}

func (w desired) removePeer(k PublicKey) step {
	return step{
		fmt.Sprintf("wg set %s peer %s remove", w.name, k),
		wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.Key(k), Remove: true}}},
	}
}

// renewPeer removes and makes a peer in one step.
func (w desired) renewPeer(p Peer) step {
	remove, add := w.removePeer(p.PublicKey), w.addPeer(p)
	return step{
		remove.text + strings.TrimPrefix(add.text, "wg set "+w.name),
		wgtypes.Config{Peers: append(remove.config.Peers, add.config.Peers...)},
	}
}

// joinPrefixes returns the list as wg(8) takes it; "" clears it.
func joinPrefixes(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return `""`
	}
	text := make([]string, len(prefixes))
	for i, p := range prefixes {
		text[i] = p.String()
	}
	return strings.Join(text, ",")
}

// Diff returns the steps that would make the device called name as config and
// mark say. It only reads. A peer that is called somewhere is called well: it may
// have roamed. A link of that name that is no WireGuard device, or one whose
// process is gone, lacks everything.
func Diff(name string, config *Config, mark uint32) ([]routing.Step, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("tunnel %s: opening WireGuard control: %w", name, err)
	}
	defer client.Close()
	have, err := client.Device(name)
	if errors.Is(err, fs.ErrNotExist) {
		have, err = &wgtypes.Device{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tunnel %s: reading the device: %w", name, err)
	}
	w := desired{name: name, config: config, mark: mark, called: map[PublicKey]netip.AddrPort{}}
	for _, p := range config.Peers {
		if a, ok := p.Endpoint.Literal(); ok {
			w.called[p.PublicKey] = a
		}
	}
	var steps []routing.Step
	for _, s := range w.diff(have, given{endpoint: w.called, port: int(config.ListenPort)}) {
		steps = append(steps, s)
	}
	return steps, nil
}

// merge returns one configuration that does all steps, in their order.
func merge(steps []step) wgtypes.Config {
	var all wgtypes.Config
	for _, s := range steps {
		if s.config.PrivateKey != nil {
			all.PrivateKey = s.config.PrivateKey
		}
		if s.config.ListenPort != nil {
			all.ListenPort = s.config.ListenPort
		}
		if s.config.FirewallMark != nil {
			all.FirewallMark = s.config.FirewallMark
		}
		all.Peers = append(all.Peers, s.config.Peers...)
	}
	return all
}
