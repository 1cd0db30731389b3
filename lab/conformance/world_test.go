package conformance_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/daemon"
	"smartdns/lab/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// Where things listen in the namespace of the tests.
const (
	ours      = "127.0.0.1:5300"
	authority = "127.0.0.1:5301"
)

// forward is a config that asks one server about everything.
const forward = `
[listen]
dns = ["` + ours + `"]

[side.domestic]
servers = ["` + authority + `"]

[side.foreign]
servers = ["` + authority + `"]

[decide]
names = [{ match = "*", ask = "foreign" }]
`

// run starts the daemon with config and returns when it answers. It stops with
// the test. The config file, smartdns.toml, and the run directory are in dir.
func run(t *testing.T, config string) (dir string) {
	t.Helper()
	netnstest.Require(t)
	dir = t.TempDir()
	file := filepath.Join(dir, "smartdns.toml")
	config = withoutProbe(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ready, socket := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", socket)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{
			Config: file, Version: "conformance", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Dirs: daemon.Dirs{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")},
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	})
	if err := awaitReady(ready, ended); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withoutProbe is config with [poison] probe = false, unless it says otherwise:
// most servers of these tests answer whatever they are asked.
func withoutProbe(config string) string {
	const table, key = "[poison]\n", "probe = "
	switch {
	case strings.Contains(config, key):
		return config
	case strings.Contains(config, table):
		return strings.Replace(config, table, table+key+"false\n", 1)
	}
	return config + "\n" + table + key + "false\n"
}

// notifySocket is where a program says that it is ready, as to systemd.
func notifySocket(t *testing.T) (ready *net.UnixConn, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ready.Close() })
	return ready, path
}

// awaitReady returns when a program has said that it is ready, or why it ended.
func awaitReady(ready *net.UnixConn, ended chan error) error {
	ready.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 4096)
	for {
		n, err := ready.Read(b)
		if err != nil {
			select {
			case err = <-ended:
				ended <- nil
			default:
			}
			return fmt.Errorf("waiting until it is ready: %w", err)
		}
		if strings.Contains(string(b[:n]), "READY=1") {
			return nil
		}
	}
}
