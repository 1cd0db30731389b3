package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Gateway is the host on which the daemon runs.
type Gateway struct {
	*Namespace
	dir    string
	report Reporter

	mu        sync.Mutex // guards following
	processes []*Process
}

// ConfigFile is the daemon's configuration file, which WriteConfig writes.
func (g *Gateway) ConfigFile() string { return filepath.Join(g.dir, "smartdns.toml") }

// WireGuardFile is the provider's wg-quick file of the tunnel. It exists.
func (g *Gateway) WireGuardFile() string { return filepath.Join(g.dir, "wg0.conf") }

// AuthorityFile is the certificate of the authority that vouches for the DNS
// over TLS servers; Start tells the daemon of it by SSL_CERT_FILE.
func (g *Gateway) AuthorityFile() string { return filepath.Join(g.dir, "ca.pem") }

// RunDir is the daemon's --run-dir. It is below the gateway's own /run, so that
// only programs in the gateway's mount namespace see it.
func (g *Gateway) RunDir() string { return "/run/smartdns" }

// StateDir is the daemon's --state-dir.
func (g *Gateway) StateDir() string { return filepath.Join(g.dir, "state") }

// GatewayConfig returns the configuration of a gateway between the lab's LAN,
// its ISP and its tunnel. Text of more tables may be appended.
func (w *World) GatewayConfig() string {
	return w.Gateway.Config("8.8.8.8", "1.1.1.1")
}

// Config is GatewayConfig with other servers on the foreign side, such as
// "tls://8.8.8.8".
func (g *Gateway) Config(foreign ...string) string {
	return fmt.Sprintf(`[listen]
dns = ["127.0.0.1:53", "[::1]:53"]
lan = ["%s"]

[tunnel.wg0]
config = "%s"

[side.domestic]
servers = ["%s", "%s"]
via     = "direct"

[side.foreign]
servers = ["%s"]
via     = "wg0"

[decide]
names = [
  { match = ["baidu.com", "qq.com", "taobao.com", "cn.test"], ask = "domestic" },
  { match = ["foreign.test", "blocked.test"],                 ask = "foreign" },
  { match = "*",                                              ask = "auto" },
]
addresses = [
  { match = ["private", "home"], via = "direct" },
  { match = "*",                 via = "wg0" },
]
`, lanName, g.WireGuardFile(), AliDNS, DNSPod, strings.Join(foreign, `", "`))
}

// WriteConfig writes the daemon's configuration file.
func (g *Gateway) WriteConfig(text string) error {
	return os.WriteFile(g.ConfigFile(), []byte(text), 0o644)
}

// Start runs exe with args on the gateway and waits until it reports, by
// sd_notify, that it is ready. If it ends before, or ctx does, the error holds
// its output. A failed start leaves no process.
func (g *Gateway) Start(ctx context.Context, exe string, args ...string) (*Process, error) {
	p, err := g.Launch(exe, args...)
	if err != nil {
		return nil, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

// StartDaemon writes config and starts `exe run` with the gateway's files and
// directories, and with args after them.
func (g *Gateway) StartDaemon(ctx context.Context, exe []string, config string, args ...string) (*Process, error) {
	if err := g.WriteConfig(config); err != nil {
		return nil, err
	}
	all := append(exe[1:len(exe):len(exe)], "run", "-c", g.ConfigFile(), "--run-dir", g.RunDir(), "--state-dir", g.StateDir())
	return g.Start(ctx, exe[0], append(all, args...)...)
}

// Launch is Start without waiting.
func (g *Gateway) Launch(exe string, args ...string) (*Process, error) {
	p, err := g.launch(exe, args...)
	if err != nil {
		return nil, fmt.Errorf("starting %s on the gateway: %w", exe, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.processes = append(g.processes, p)
	return p, nil
}

func (g *Gateway) launch(exe string, args ...string) (*Process, error) {
	socket, err := os.CreateTemp(g.dir, "notify-")
	if err != nil {
		return nil, err
	}
	path := socket.Name()
	if err := errors.Join(socket.Close(), os.Remove(path)); err != nil {
		return nil, err
	}
	return startProcess(g.Namespace, path, g.report, []string{
		"NOTIFY_SOCKET=" + path, "SSL_CERT_FILE=" + g.AuthorityFile(),
	}, exe, args...)
}

// killAll ends what tests left running.
func (g *Gateway) killAll() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, p := range g.processes {
		errs = append(errs, p.Kill())
	}
	g.processes = nil
	return errors.Join(errs...)
}
