package wg

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"smartdns/routing"
)

// Sync makes the device called name as config and mark say, whichever process
// runs it, and returns the steps that it took: `wg syncconf`. Sessions of peers
// that stay go on, and so does a peer that roamed.
func Sync(name string, config *Config, mark uint32) ([]routing.Step, error) {
	client, have, err := openDevice(name)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	w := desired{name: name, config: config, mark: mark, called: map[PublicKey]netip.AddrPort{}}
	for _, p := range config.Peers {
		if a, ok := p.Endpoint.Literal(); ok {
			w.called[p.PublicKey] = a
		}
	}
	steps := w.diff(have, given{endpoint: w.called, port: int(config.ListenPort)})
	if len(steps) == 0 {
		return nil, nil
	}
	if err := client.ConfigureDevice(name, merge(steps)); err != nil {
		return nil, fmt.Errorf("tunnel %s: configuring the device: %w", name, err)
	}
	var done []routing.Step
	for _, s := range steps {
		done = append(done, s)
	}
	return done, nil
}

// Look returns what the device called name shows, whichever process runs it.
func Look(name string) (Observation, error) {
	client, have, err := openDevice(name)
	if err != nil {
		return Observation{}, err
	}
	defer client.Close()
	kind := Userspace
	if have.Type == wgtypes.LinuxKernel {
		kind = Kernel
	}
	return observed(kind, have), nil
}

func openDevice(name string) (*wgctrl.Client, *wgtypes.Device, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, nil, fmt.Errorf("tunnel %s: opening WireGuard control: %w", name, err)
	}
	have, err := client.Device(name)
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("tunnel %s: reading the device: %w", name, err)
	}
	return client, have, nil
}
