package daemon_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/daemon"
)

// BenchmarkCompile is what a start and a reload do before they touch anything:
// with the data of the program alone, with the largest list that people have, and
// with the static sets of a tunnel.
func BenchmarkCompile(b *testing.B) {
	dir := b.TempDir()
	packed, err := os.Open("../../shared/data/domains/accelerated-domains.china.conf.gz")
	if err != nil {
		b.Skip("SKIPPED: no ../shared/data: " + err.Error())
	}
	defer packed.Close()
	names := filepath.Join(dir, "china.conf")
	z, err := gzip.NewReader(packed)
	if err != nil {
		b.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	wg := filepath.Join(dir, "wg0.conf")
	key := strings.Repeat("A", 42) + "E="
	for file, text := range map[string][]byte{
		names: text,
		wg:    fmt.Appendf(nil, "[Interface]\nPrivateKey = %s\nAddress = 10.9.0.2/32\n[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51820\n", key, key),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	list := fmt.Sprintf("[list.cn-domains]\nfile = %q\n", names)
	for name, text := range map[string]string{
		"embedded":      "",
		"110,769 names": list,
		"tunnel":        fmt.Sprintf("[tunnel.wg0]\nconfig = %q\n", wg) + list,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := configs.Parse(strings.NewReader(text), "bench.toml")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := daemon.Compile(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
