package lab_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// fakeDaemon stands for the daemon: it answers DNS on the LAN by asking 8.8.8.8
// over TCP, and says so to whoever started it.
func fakeDaemon(args []string) int {
	if len(args) == 0 || args[0] == "fail" {
		fmt.Fprintln(os.Stderr, "smartdns.toml:3: this is the reason")
		return 1
	}
	if args[0] == "query" {
		fmt.Println(args[1], "A   NOERROR")
		return 0
	}
	fmt.Println("args", args)
	if err := os.MkdirAll("/run/smartdns", 0o755); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := os.WriteFile("/run/smartdns/here", nil, 0o644); err != nil {
		fmt.Println(err)
		return 1
	}
	pc, err := net.ListenPacket("udp", netip.AddrPortFrom(lab.LANV4, 53).String())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go dns.ActivateAndServe(nil, pc, dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		c := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
		if a, _, err := c.Exchange(q, "8.8.8.8:53"); err == nil {
			w.WriteMsg(a)
		}
	}))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	notify("READY=1\nSTATUS=fine")
	for s := range signals {
		if s == unix.SIGTERM {
			break
		}
		notify("RELOADING=1")
		notify("READY=1\nSTATUS=reloaded")
	}
	fmt.Println("bye")
	return 0
}

func notify(text string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.Write([]byte(text))
}

// unprivileged builds a world as a newcomer without root does.
func unprivileged() int {
	code, again, err := lab.Enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	if again {
		return code
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := lab.New(ctx, stderr{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	seen, err := w.Client.Visit(ctx, netip.AddrPortFrom(lab.AbroadWebV4, 443))
	fmt.Println("uid", os.Getuid(), "seen", seen.Peer.Addr(), err, "leaks", w.Sniffer.Leaks() > 0)
	out, err := w.Gateway.Exec(ctx, "/proc/self/exe", "fake-daemon", "query", "a.test")
	fmt.Print(out)
	if err != nil {
		fmt.Println(err)
	}
	if err := w.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 7
}

type stderr struct{}

func (stderr) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
