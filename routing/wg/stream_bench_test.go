package wg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
)

// perStream is how many octets a stream carries in a round.
const perStream = 32 << 20

// stream is a TCP connection between two hosts, in constant use.
type stream struct {
	name string
	c    net.Conn
	took []time.Duration
}

// BenchmarkStream measures one TCP stream through the userspace device, with
// another one and with Debian's wireguard-go at the far end, beside the same
// stream between two of wireguard-go's and past all tunnels. Each end is a
// process of its own; the streams take turns, and the medians are reported, with
// the ratios to wireguard-go. Wants -benchtime 5x or more.
func BenchmarkStream(b *testing.B) {
	netnstest.Require(b, "wg")
	_, err := exec.LookPath("wireguard-go")
	others := err == nil
	if !others {
		b.Log("wireguard-go is not installed: nothing to compare with")
	}
	streams := []*stream{
		{name: "plain", c: joined(b, "", "")},
		{name: "ours", c: joined(b, "ours", "ours")},
	}
	if others {
		streams = append(streams, &stream{name: "ours-to-wireguard-go", c: joined(b, "ours", "wireguard-go")},
			&stream{name: "wireguard-go", c: joined(b, "wireguard-go", "wireguard-go")})
	}
	out := make([]byte, 256<<10)
	for b.Loop() {
		for _, s := range streams {
			begun := time.Now()
			for sent := 0; sent < perStream; sent += len(out) {
				if _, err := s.c.Write(out); err != nil {
					b.Fatal(s.name, err)
				}
			}
			if _, err := io.ReadFull(s.c, make([]byte, 1)); err != nil { // all of it is there
				b.Fatal(s.name, err)
			}
			s.took = append(s.took, time.Since(begun))
		}
	}
	rate := map[string]float64{}
	for _, s := range streams {
		slices.Sort(s.took)
		rate[s.name] = 8 * perStream / s.took[len(s.took)/2].Seconds() / 1e9
		b.ReportMetric(rate[s.name], s.name+"-Gbit/s")
	}
	if others {
		b.ReportMetric(rate["ours"]/rate["wireguard-go"], "ours/wireguard-go")
		b.ReportMetric(rate["ours-to-wireguard-go"]/rate["wireguard-go"], "mixed/wireguard-go")
	}
	b.ReportMetric(rate["ours"]/rate["plain"], "ours/plain")
	b.ReportMetric(0, "ns/op")
}

// joined returns a stream between two hosts with a tunnel between them, whose
// ends are of these kinds; past it for "".
func joined(b *testing.B, nearKind, farKind string) net.Conn {
	b.Helper()
	near, far := netnstest.New(b), netnstest.New(b)
	address := "198.51.100.2"
	netnstest.Do(b, near, func() { veth(b, far) })
	if nearKind != "" {
		address = "10.9.0.1"
		keys := newPair(b)
		nearConf := fmt.Sprintf("[Interface]\nPrivateKey=%s\n[Peer]\nPublicKey=%s\nPresharedKey=%s\nAllowedIPs=0.0.0.0/0,::/0\nEndpoint=198.51.100.2:51820\n",
			keys.nearKey, public(b, keys.farKey), keys.psk)
		device(b, far, farKind, keys.far(b))
		device(b, near, nearKind, peerSpec{Name: "wgnear", Conf: nearConf, Addrs: []string{"10.9.0.2/24"}})
	}
	var listen net.Listener
	var c net.Conn
	var err error
	netnstest.Do(b, far, func() { listen, err = net.Listen("tcp", address+":9000") })
	must(b, err)
	b.Cleanup(func() { listen.Close() })
	go serveStreams(listen)
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	netnstest.Do(b, near, func() { c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address+":9000") })
	must(b, err)
	b.Cleanup(func() { c.Close() })
	return c
}

// serveStreams answers each perStream octets with one.
func serveStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := make([]byte, 256<<10)
			for got := 0; ; {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if got += n; got >= perStream {
					got -= perStream
					c.Write(b[:1])
				}
			}
		}()
	}
}

// device runs one end in a namespace, under a name that no other has: they share
// the directory of configuration sockets.
func device(b *testing.B, ns netns.NsHandle, kind string, spec peerSpec) {
	b.Helper()
	spec.Name = fmt.Sprintf("%s%d", spec.Name, int(ns))
	if kind == "ours" {
		startPeer(b, &ns, spec)
		return
	}
	var err error
	netnstest.Do(b, ns, func() { err = wireguardGo(b, spec) })
	must(b, err)
}

// wireguardGo does what wg-quick does with wireguard-go, in the namespace of the
// calling thread.
func wireguardGo(b *testing.B, spec peerSpec) error {
	p := exec.Command("wireguard-go", "-f", spec.Name)
	p.Env = append(os.Environ(), "LOG_LEVEL=silent", "WG_PROCESS_FOREGROUND=1")
	if err := p.Start(); err != nil {
		return err
	}
	b.Cleanup(func() { p.Process.Kill(); p.Wait() })
	file := filepath.Join(b.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(spec.Conf), 0o600); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		out, err := exec.Command("wg", "setconf", spec.Name, file).CombinedOutput()
		if err == nil {
			break
		}
		if time.Since(begun) > 10*time.Second {
			return errors.Join(err, errors.New(string(out)))
		}
	}
	return setUp(spec.Name, spec.Addrs...)
}
