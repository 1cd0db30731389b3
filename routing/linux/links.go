package linux

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
)

// AddWireGuard makes a WireGuard link of the kernel, down and without a
// configuration. The error matches errors.ErrUnsupported where the kernel has
// no WireGuard, fs.ErrExist where a link of that name is there, and
// fs.ErrPermission without CAP_NET_ADMIN.
func (k *Kernel) AddWireGuard(name string) error {
	err := k.h.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name}})
	if err != nil {
		return fmt.Errorf("adding WireGuard link %s: %w", name, permission(err))
	}
	return nil
}

// DeleteLink deletes a link; it is no error if there is none of that name.
func (k *Kernel) DeleteLink(name string) error {
	err := k.onLink(name, k.h.LinkDel)
	if err != nil && !gone(err) {
		return fmt.Errorf("deleting link %s: %w", name, permission(err))
	}
	return nil
}

// LinkIndex returns the index and the kind ("wireguard", "tuntap", ...) of a
// link. The error matches fs.ErrNotExist if there is none of that name.
func (k *Kernel) LinkIndex(name string) (index int, kind string, err error) {
	l, err := k.h.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		err = fs.ErrNotExist
	}
	if err != nil {
		return 0, "", fmt.Errorf("finding link %s: %w", name, err)
	}
	return l.Attrs().Index, l.Type(), nil
}
