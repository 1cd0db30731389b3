package lab

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// HandMadeTunnel makes wg0 on the gateway by hand, with rules that send what is
// abroad into it: the least that shows that the world's tunnel works.
func (w *World) HandMadeTunnel() (stop func(), err error) {
	const table, mark = 52001, 1 << 24
	g := w.Gateway
	var d *device.Device
	err = g.Do(func() error {
		t, err := tun.CreateTUN("wg0", tunnelMTU)
		if err != nil {
			return err
		}
		d = device.NewDevice(hostTUN{t}, &hostBind{Bind: conn.NewStdNetBind(), ns: g.Namespace}, device.NewLogger(device.LogLevelSilent, ""))
		return d.IpcSet(w.FarEnd.clientUAPI(mark))
	})
	if err != nil {
		return nil, err
	}
	if err := d.Up(); err != nil {
		return d.Close, err
	}
	if err := g.up("wg0", netip.PrefixFrom(TunnelV4, 32), netip.PrefixFrom(TunnelV6, 128)); err != nil {
		return d.Close, err
	}
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, p := range all {
		if err := g.AddRoute(Route{To: p, Dev: "wg0", Table: table}); err != nil {
			return d.Close, err
		}
	}
	for _, a := range append(worldDNS, FarV4, FarV6) {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, p := range append(all[2:], abroadPrefixes...) {
		r := netlink.NewRule()
		r.Priority, r.Table, r.Dst, r.Family = 5101, table, ipNet(p), unix.AF_INET
		if p.Addr().Is6() {
			r.Family = unix.AF_INET6
		}
		if err := g.nl.RuleAdd(r); err != nil {
			return d.Close, err
		}
	}
	return d.Close, nil
}
