package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// DemoOptions says how Demo runs.
type DemoOptions struct {
	Exe  string   // the program to run as the daemon; this one if empty
	Args []string // put before its command
	Keep bool     // leave the lab up, with the daemon running, until ctx ends
}

const topology = `
  client ---------- gateway ----------- ISP ------------- the world
  192.168.8.20      smartdns is here    223.5.5.5 lies    8.8.8.8 is honest
                    |                   39.156.66.10      93.184.216.34
                    |                   an injector       |
                    |                   forges answers    |
                    +=========== WireGuard tunnel ========+ far end 45.76.1.2
`

// demoNames are a name at home, one abroad, and one that is poisoned.
var demoNames = []string{"www.baidu.com", "www.example.com", "www.google.com"}

// Demo shows a newcomer what smartdns does: it builds a world, starts the daemon
// on its gateway, and tells on out, at most 80 columns wide, what three names
// resolve to without and with it, and which way connections to them went. It
// returns an error if something did not go as smartdns promises. Without the
// rights that New needs it runs the program again (see Enter) and waits for it.
func Demo(ctx context.Context, out io.Writer, o DemoOptions) (err error) {
	if code, again, err := Enter(); err != nil {
		return err
	} else if again && code != 0 {
		return fmt.Errorf("running in a user namespace: exit code %d", code)
	} else if again {
		return nil
	}
	if o.Exe == "" {
		if o.Exe, err = os.Executable(); err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
	}
	start := time.Now()
	w, err := New(ctx, quiet{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	d := &demo{World: w, out: out, options: o}
	d.say("%s", strings.TrimPrefix(topology, "\n"))
	d.say("A small internet on this machine, in namespaces; built in %d ms. Nothing of it\nreaches your network, and it is gone when this ends.\n", time.Since(start).Milliseconds())
	return d.run(ctx)
}

// quiet is the Reporter of those who do not want to know.
type quiet struct{}

func (quiet) Logf(string, ...any) {}

// demo is one run of Demo.
type demo struct {
	*World
	out     io.Writer
	options DemoOptions
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	d.say("Without smartdns: the client asks 8.8.8.8, and connects.")
	if err := d.look(ctx, d.plain); err != nil {
		return err
	}

	d.Sniffer.Reset()
	start := time.Now()
	p, err := d.Gateway.StartDaemon(ctx, append([]string{d.options.Exe}, d.options.Args...), d.GatewayConfig())
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	d.say("\nsmartdns runs on the gateway: ready in %d ms. The client asks the gateway.", time.Since(start).Milliseconds())
	failed := d.look(ctx, d.ours)

	for _, name := range demoNames {
		if d.Zone.Poisoned(name) { // a cached answer does not say whom we had to ask
			failed = errors.Join(failed, d.tell(ctx, "cache", "flush", name))
		}
		failed = errors.Join(failed, d.tell(ctx, "query", name))
	}
	failed = errors.Join(failed, d.verdict())
	if d.options.Keep {
		d.keep(ctx, p)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(failed, p.Stop(stop))
}

// tell runs a command on the gateway and prints both it and what it says.
func (d *demo) tell(ctx context.Context, command ...string) error {
	d.say("\n$ smartdns %s", strings.Join(command, " "))
	args := slices.Concat(d.options.Args, command, []string{"--run-dir", d.Gateway.RunDir()})
	text, err := d.Gateway.Exec(ctx, d.options.Exe, args...)
	d.say("%s", strings.TrimRight(text, "\n"))
	return err
}

// look prints what each name resolves to, and who came to the server that is
// there. It returns what failed.
func (d *demo) look(ctx context.Context, resolve func(context.Context, string) (*dns.Msg, error)) error {
	var failed error
	d.say("  %-16s %-15s %-8s %s", "name", "answer", "way", "the server there sees")
	for _, name := range demoNames {
		addr, err := first(resolve(ctx, name))
		if err != nil {
			d.say("  %-16s %v", name, err)
			failed = errors.Join(failed, err)
			continue
		}
		if addr == ForgedV4 {
			d.say("  %-16s %-15s %-8s %s", name, addr, "-", "(forged)")
			continue
		}
		seen, err := d.Client.Visit(ctx, netip.AddrPortFrom(addr, 443))
		if err != nil {
			d.say("  %-16s %-15s %v", name, addr, err)
			failed = errors.Join(failed, fmt.Errorf("visiting %s: %w", name, err))
			continue
		}
		way := "direct"
		if seen.ThroughTunnel() {
			way = "wg0"
		}
		d.say("  %-16s %-15s %-8s %s", name, addr, way, seen.Peer.Addr())
	}
	return failed
}

// plain asks as the client does that has nothing but 8.8.8.8. It waits for the
// true answer after the forged one, lest that is on its way when we count.
func (d *demo) plain(ctx context.Context, name string) (*dns.Msg, error) {
	answers := 1
	if d.Zone.Poisoned(name) {
		answers = 2
	}
	all, err := d.Client.AskAll(ctx, Question{Server: Google, Name: name}, answers)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// ours asks the gateway.
func (d *demo) ours(ctx context.Context, name string) (*dns.Msg, error) {
	return d.Client.Ask(ctx, Question{Server: LANV4, Name: name})
}

func first(m *dns.Msg, err error) (netip.Addr, error) {
	if err != nil {
		return netip.Addr{}, err
	}
	a := Addresses(m)
	if len(a) == 0 {
		return netip.Addr{}, fmt.Errorf("resolving %s: %s without an address", m.Question[0].Name, dns.RcodeToString[m.Rcode])
	}
	return a[0], nil
}

// verdict prints what the ISP saw of the client's foreign traffic.
func (d *demo) verdict() error {
	n := d.Sniffer.Leaks()
	d.say("\nFrames on the uplink that should not be there: %d", n)
	if n == 0 {
		return nil
	}
	for _, f := range d.Sniffer.Frames() {
		d.say("  %.76s", f)
	}
	return fmt.Errorf("watching the uplink: %d frames that should not be there", n)
}

func (d *demo) keep(ctx context.Context, p *Process) {
	d.say("\nIt stays up until you press Ctrl-C. A shell on the gateway, as root:")
	d.say("  nsenter -t %d%s -n -m", p.Pid(), userFlag())
	d.say("and on the client:\n  %s", d.Client.EnterCommand())
	d.say("Try there:  dig www.google.com @8.8.8.8")
	d.say("The daemon's file is %s,", d.Gateway.ConfigFile())
	d.say("its --run-dir %s.", d.Gateway.RunDir())
	select {
	case <-ctx.Done():
	case <-p.Done():
		d.say("the daemon has ended:\n%s", p.Log())
	}
}
