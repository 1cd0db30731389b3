package wg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"smartdns/routing"
)

// Kind says which WireGuard implementation runs a tunnel.
type Kind string

// The kinds. Auto is the kernel's where there is one, and otherwise this
// process's; a device that exists is one of the others.
const (
	Auto      Kind = "auto"
	Kernel    Kind = "kernel"
	Userspace Kind = "userspace"
)

// Links makes and removes network links.
type Links interface {
	// AddWireGuard makes a WireGuard link, not yet up. Its error matches
	// errors.ErrUnsupported when the kernel has no WireGuard, and only then;
	// fs.ErrExist when there is a link of that name; fs.ErrPermission without
	// CAP_NET_ADMIN.
	AddWireGuard(name string) error
	// DeleteLink removes a link; its error matches fs.ErrNotExist when there
	// is none of that name.
	DeleteLink(name string) error
}

// Options says what tunnel to open.
type Options struct {
	Name   string // of the interface
	Config *Config
	Kind   Kind
	FwMark uint32   // of the tunnel's own UDP packets: the mark of the direct path
	Field  uint32   // the bits of the mark that FwMark decides; the file's FwMark has the others. 0: all
	Links  Links    // also for Userspace: a killed run may have left a kernel link
	TUN    *os.File // of that name, open already, with its link: Open closes it where Kind is Kernel
	Logger *slog.Logger
}

// Tunnel is one WireGuard device and the configuration it is kept at. Its
// methods may be called concurrently.
type Tunnel struct {
	name  string
	kind  Kind
	mark  uint32
	field uint32
	links Links
	log   *slog.Logger

	mu     sync.Mutex // guards following
	tun    *os.File   // for the next device; nil: a new one
	client *wgctrl.Client
	link   link
	runs   Kind // what link is; Auto for none
	config *Config
	chosen map[call]netip.AddrPort // by SetEndpoint
	given  given
}

// call is a peer at an endpoint that is a name.
type call struct {
	peer PublicKey
	at   Endpoint
}

// link is the device behind a tunnel, of either kind.
type link interface {
	up() error
	// alive reports whether the link is there, under its name.
	alive() bool
	// done is closed when the link has ended by itself or by close.
	done() <-chan struct{}
	close() error
}

// errNoDevice is what a closed tunnel, or one whose device is gone, says.
var errNoDevice = errors.New("has no device")

// Open makes the tunnel's device, or takes over the one that an earlier run of
// ours left in the kernel, and configures it: key, peers, allowed addresses and
// mark together, before the link is up. Addresses, MTU and up are routing/linux's;
// call Up after them. A peer whose endpoint is a name has none until SetEndpoint.
func Open(ctx context.Context, o Options) (*Tunnel, error) {
	t := &Tunnel{
		name: o.Name, kind: o.Kind, mark: o.FwMark, field: o.Field, links: o.Links, log: o.Logger.With("tunnel", o.Name),
		tun: o.TUN, runs: Auto,
		chosen: map[call]netip.AddrPort{},
		given:  given{endpoint: map[PublicKey]netip.AddrPort{}},
	}
	steps, err := t.Set(ctx, o.Config)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	for _, s := range steps {
		t.log.Debug("[#] " + s.String())
	}
	return t, nil
}

// Mark returns what the tunnel's own packets carry: mark in the bits of field,
// and elsewhere what the file's FwMark says. A field of 0 is all bits.
func (c *Config) Mark(mark, field uint32) uint32 {
	if field == 0 {
		return mark
	}
	return mark&field | c.Quick.FwMark&^field
}

func (t *Tunnel) String() string { return t.name }

// GoString keeps the keys in t out of %#v.
func (t *Tunnel) GoString() string { return "wg.Tunnel(" + t.name + ")" }

// Set brings the device to want in one transaction and returns the steps it
// took; none when all is as it should be. A device that is gone is made again;
// its link then needs addresses, MTU and up again, and Up. Live sessions of
// peers that stay are kept, and so is the endpoint a peer has roamed to. Steps
// print without secrets.
func (t *Tunnel) Set(ctx context.Context, want *Config) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var done []routing.Step
	made, err := t.ensureLocked(want)
	if made != nil {
		done = append(done, *made)
	}
	if err != nil {
		return done, fmt.Errorf("tunnel %s: %w", t.name, err)
	}
	have, err := t.client.Device(t.name)
	if err != nil {
		return done, fmt.Errorf("tunnel %s: reading the device: %w", t.name, err)
	}
	t.config = want
	steps := t.desiredLocked().diff(have, t.given)
	if err := t.applyLocked(steps); err != nil {
		return done, err
	}
	for _, s := range steps {
		done = append(done, s)
	}
	return done, nil
}

// SetEndpoint calls a peer whose endpoint is a name at an address of it, or
// another one at its own again. The peer's session starts anew,
// so that the new address is called at once and not after the 5 s that
// WireGuard leaves between two handshakes (REKEY_TIMEOUT).
func (t *Tunnel) SetEndpoint(ctx context.Context, peer PublicKey, to netip.AddrPort) (routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if t.link == nil {
		return nil, fmt.Errorf("tunnel %s: %w", t.name, errNoDevice)
	}
	for _, p := range t.config.Peers {
		own, literal := p.Endpoint.Literal()
		if p.PublicKey != peer || !p.Endpoint.IsName() && (!literal || own != to) {
			continue
		}
		if !literal {
			t.chosen[call{peer, p.Endpoint}] = to
		}
		s := t.desiredLocked().renewPeer(p)
		return s, t.applyLocked([]step{s})
	}
	return nil, fmt.Errorf("tunnel %s: no peer %s that may be called at %s", t.name, peer.Short(), to)
}

// Observation is what a device shows.
type Observation struct {
	Kind  Kind
	Peers map[PublicKey]PeerState
	// Drifted reports that somebody changed the device: Set would not be empty.
	Drifted bool
}

// PeerState is what a device shows of one peer.
type PeerState struct {
	Endpoint  netip.AddrPort // in use: where the peer roamed to
	Handshake time.Time      // zero: never
	RX, TX    int64          // bytes
}

// Observe reads the device.
func (t *Tunnel) Observe(ctx context.Context) (Observation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Observation{}, err
	}
	if t.link == nil {
		return Observation{}, fmt.Errorf("tunnel %s: %w", t.name, errNoDevice)
	}
	if !t.link.alive() {
		return Observation{Kind: t.runs, Drifted: true}, nil
	}
	have, err := t.client.Device(t.name)
	if err != nil {
		return Observation{}, fmt.Errorf("tunnel %s: reading the device: %w", t.name, err)
	}
	o := observed(t.runs, have)
	o.Drifted = len(t.desiredLocked().diff(have, t.given)) > 0
	return o, nil
}

// Up starts the device after its link is up. It is idempotent, and nothing for
// the kernel's device. A busy ListenPort shows here.
func (t *Tunnel) Up() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil {
		return fmt.Errorf("tunnel %s: %w", t.name, errNoDevice)
	}
	if err := t.link.up(); err != nil {
		return fmt.Errorf("tunnel %s: starting the device: %w", t.name, err)
	}
	return nil
}

// Alive reports whether the device's own link is there under its name. Another
// link of that name is not it.
func (t *Tunnel) Alive() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.link != nil && t.link.alive()
}

// Kind returns which implementation runs the tunnel: Kernel, Userspace, or Auto
// while none does.
func (t *Tunnel) Kind() Kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.runs
}

// Done returns a channel that is closed when the present device ends: closed by
// us, or its link was deleted. The kernel's device does not tell; routing/linux
// sees its link go. After Set made a device again, ask again.
func (t *Tunnel) Done() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return t.link.done()
}

// Close removes the device and its link. It is idempotent.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	if t.link != nil {
		errs = append(errs, t.link.close())
		t.link, t.runs = nil, Auto
	}
	if t.client != nil {
		errs = append(errs, t.client.Close())
		t.client = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing tunnel %s: %w", t.name, err)
	}
	return nil
}

// desiredLocked returns what the device should be.
func (t *Tunnel) desiredLocked() desired {
	called := make(map[PublicKey]netip.AddrPort, len(t.config.Peers))
	for _, p := range t.config.Peers {
		if a, ok := p.Endpoint.Literal(); ok {
			called[p.PublicKey] = a
		} else if p.Endpoint.IsName() {
			called[p.PublicKey] = t.chosen[call{p.PublicKey, p.Endpoint}]
		}
	}
	return desired{name: t.name, config: t.config, mark: t.config.Mark(t.mark, t.field), called: called}
}

func (t *Tunnel) applyLocked(steps []step) error {
	if len(steps) == 0 {
		return nil
	}
	all := merge(steps)
	if err := t.turnFamilyLocked(all); err != nil {
		return err
	}
	if err := t.client.ConfigureDevice(t.name, all); err != nil {
		return fmt.Errorf("tunnel %s: configuring the device: %w", t.name, err)
	}
	if all.ListenPort != nil {
		t.given.port = *all.ListenPort
	}
	for _, p := range all.Peers {
		if p.Remove {
			delete(t.given.endpoint, PublicKey(p.PublicKey))
		}
		if p.Endpoint != nil {
			t.given.endpoint[PublicKey(p.PublicKey)] = fromUDP(p.Endpoint)
		}
	}
	return nil
}

// turnFamilyLocked prepares the device for a peer that is called over the other
// family than what was called before. Peers that the change makes anew are
// removed first, so that nothing is sent to them meanwhile.
func (t *Tunnel) turnFamilyLocked(all wgtypes.Config) error {
	turns := false
	for _, p := range all.Peers {
		for _, before := range t.given.endpoint {
			turns = turns || p.Endpoint != nil && fromUDP(p.Endpoint).Addr().Is4() != before.Addr().Is4()
		}
	}
	device, ok := t.link.(interface{ forgetAddresses() })
	if !turns || !ok {
		return nil
	}
	removals := wgtypes.Config{}
	for _, p := range all.Peers {
		if p.Remove {
			removals.Peers = append(removals.Peers, p)
		}
	}
	if err := t.client.ConfigureDevice(t.name, removals); err != nil {
		return fmt.Errorf("tunnel %s: configuring the device: %w", t.name, err)
	}
	device.forgetAddresses()
	return nil
}

// ensureLocked makes the device unless it is there, and returns the step that
// made it.
func (t *Tunnel) ensureLocked(want *Config) (*step, error) {
	if t.link != nil {
		if t.link.alive() {
			return nil, nil
		}
		err := t.link.close()
		t.link, t.runs = nil, Auto
		if err != nil {
			return nil, fmt.Errorf("removing what is left of the device: %w", err)
		}
		t.log.Warn("the tunnel's link was deleted or renamed, making it again")
	}
	t.given = given{endpoint: map[PublicKey]netip.AddrPort{}}
	made, err := t.makeLocked(want)
	if err == nil && t.client == nil {
		// Only now: making the link loads the module that New looks for.
		t.client, err = wgctrl.New()
	}
	return made, err
}

func (t *Tunnel) makeLocked(want *Config) (*step, error) {
	if t.tun != nil && t.kind == Kernel {
		t.tun.Close() // the link goes with it
		t.tun = nil
	}
	if t.kind == Userspace || t.tun != nil {
		return t.makeUserspaceLocked(want)
	}
	err := t.links.AddWireGuard(t.name)
	switch {
	case err == nil:
		made := &step{text: "ip link add " + t.name + " type wireguard"}
		return made, t.kernelLocked()
	case errors.Is(err, fs.ErrExist):
		return nil, t.adoptLocked(want)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("adding the link needs CAP_NET_ADMIN: %w", err)
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("adding the link: %w", err)
	case t.kind == Kernel:
		return nil, fmt.Errorf(`this kernel has no WireGuard (device = "auto" would run it in this process): %w`, err)
	}
	t.log.Info("this kernel has no WireGuard: running it in this process")
	return t.makeUserspaceLocked(want)
}

func (t *Tunnel) makeUserspaceLocked(want *Config) (*step, error) {
	if _, err := net.InterfaceByName(t.name); err == nil && t.tun == nil {
		// A link that a killed run of ours left, when it used the kernel's.
		if err := t.adoptLocked(want); err != nil {
			return nil, err
		}
		if err := t.link.close(); err != nil {
			return nil, fmt.Errorf("removing the link of an earlier run: %w", err)
		}
		t.link, t.runs = nil, Auto
	}
	mtu := want.MTU
	if mtu == 0 {
		mtu = 1420
	}
	given := t.tun
	t.tun = nil // whatever becomes of it
	dev, err := newUserspace(t.name, mtu, given, t.log)
	if err != nil {
		return nil, err
	}
	t.link, t.runs = dev, Userspace
	if given != nil {
		return nil, nil
	}
	return &step{text: "wireguard-go " + t.name}, nil
}

// adoptLocked takes over a kernel device of our name that a killed run of ours
// left: it has our key, or none yet. Anything else belongs to somebody.
func (t *Tunnel) adoptLocked(want *Config) error {
	if t.client == nil {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		t.client = client
	}
	have, err := t.client.Device(t.name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("there is a link of that name that is not WireGuard's; remove it or call the tunnel something else")
	case err != nil:
		return fmt.Errorf("reading the link of that name: %w", err)
	case have.Type != wgtypes.LinuxKernel:
		return errors.New("another process serves a WireGuard link of that name; stop it first")
	}
	// wg-quick's link of the same file has the same key; the mark, which is set
	// together with the key, is ours.
	none := wgtypes.Key{}
	ours := have.PrivateKey == wgtypes.Key(want.PrivateKey.clamped().key) && have.FirewallMark == int(want.Mark(t.mark, t.field))
	if have.PrivateKey != none && !ours {
		return fmt.Errorf("there is a WireGuard link of that name that is not ours; did wg-quick make it? Then: wg-quick down %[1]s, else: ip link delete %[1]s", t.name)
	}
	return t.kernelLocked()
}

func (t *Tunnel) kernelLocked() error {
	l, err := newKernelLink(t.name, t.links)
	if err != nil {
		return err
	}
	t.link, t.runs = l, Kernel
	return nil
}
