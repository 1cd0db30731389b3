package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
)

// kernelLink is a WireGuard link of the kernel. It outlives this process.
type kernelLink struct {
	name  string
	index int
	links Links
	ended chan struct{}
}

func newKernelLink(name string, links Links) (link, error) {
	shown, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding the new link: %w", err)
	}
	return &kernelLink{name: name, index: shown.Index, links: links, ended: make(chan struct{})}, nil
}

// up has nothing to do: the link's own up starts the device.
func (*kernelLink) up() error { return nil }

func (d *kernelLink) alive() bool {
	shown, err := net.InterfaceByIndex(d.index)
	return err == nil && shown.Name == d.name
}

func (d *kernelLink) done() <-chan struct{} { return d.ended }

// close deletes the link, also when somebody renamed it.
func (d *kernelLink) close() error {
	close(d.ended)
	shown, err := net.InterfaceByIndex(d.index)
	if err != nil {
		return nil // it is gone
	}
	if err := d.links.DeleteLink(shown.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting link %s: %w", shown.Name, err)
	}
	return nil
}
