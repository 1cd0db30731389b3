package daemon

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"smartdns/internal/wholefile"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/web/api"
)

// Bundle writes what somebody who helps has to know into a tar.gz at file, for
// its owner alone, and returns the diagnosis that is in it. No key, password or
// commented line is in it. What could not be read says so in its place.
func Bundle(ctx context.Context, o Options, file string) (api.Diagnosis, error) {
	d := Doctor(ctx, o)
	b := bundle{now: time.Now()}
	b.json("doctor.json", d, nil)
	s, err := api.Dial(filepath.Join(o.Dirs.Run, SocketName)).Status(ctx)
	b.json("status.json", s, err)
	steps, err := Plan(ctx, o, false)
	b.text("plan.txt", strings.Join(steps, "\n"), err)
	steps, err = Diff(ctx, o)
	b.text("diff.txt", strings.Join(steps, "\n"), err)
	c, err := LoadConfig(o.Config)
	if err == nil {
		b.text("smartdns.toml", c.Text(), nil)
		for _, t := range c.Tunnels {
			text, err := os.ReadFile(readable(t.Config))
			b.text("tunnels/"+filepath.Base(t.Config), withoutSecrets(string(text)), err)
		}
	} else {
		b.text("smartdns.toml", "", err)
	}
	routes, err := routingSeen(ctx, o)
	b.json("routing.json", routes, err)
	var chains []nft.Chain
	err = withTable(ctx, func(t *nft.Table) (err error) {
		chains, err = t.Foreign(ctx)
		return err
	})
	b.json("chains-of-others.json", chains, err)
	b.text("sysctls.txt", sysctlText(), nil)
	for _, f := range []string{"/proc/version", "/etc/os-release", "/proc/meminfo", "/proc/modules", resolvConf} {
		text, err := os.ReadFile(f)
		if !errors.Is(err, fs.ErrNotExist) { // modules are, where the kernel has none
			b.text("host/"+filepath.Base(f), string(text), err)
		}
	}
	b.text("version.txt", o.Version, nil)
	err = wholefile.Replace(file, func(f *os.File) error { return b.write(f) })
	if err != nil {
		err = fmt.Errorf("writing the bundle: %w", err)
	}
	return d, err
}

// bundle is files in the making.
type bundle struct {
	now   time.Time
	files []bundled
}

type bundled struct{ name, text string }

func (b *bundle) text(name, text string, err error) {
	if err != nil {
		text += "\nnot read: " + err.Error() + "\n"
	}
	b.files = append(b.files, bundled{name, text})
}

func (b *bundle) json(name string, v any, err error) {
	text, jsonErr := json.MarshalIndent(v, "", "  ")
	if err != nil {
		text = nil
	}
	b.text(name, string(text), errors.Join(err, jsonErr))
}

func (b *bundle) write(w io.Writer) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, f := range b.files {
		h := &tar.Header{Name: "smartdns-bundle/" + f.name, Mode: 0o600, Size: int64(len(f.text)), ModTime: b.now, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(t, f.text); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

// withoutSecrets returns a wg-quick file with the values of known keys that are
// no secrets, and nothing else of it: a comment may hold an old key, a command a
// password.
func withoutSecrets(text string) string {
	const harmless = " address dns mtu table fwmark saveconfig listenport publickey allowedips endpoint persistentkeepalive "
	var out strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		key, value, isKey := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		switch {
		case line == "[Interface]" || line == "[Peer]":
			out.WriteString(line)
		case isKey && strings.Contains(harmless, " "+strings.ToLower(key)+" "):
			out.WriteString(key + " = " + strings.TrimSpace(value))
		case strings.TrimSpace(line) != "":
			out.WriteString("# a line that may hold a secret")
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// seenRouting is what the kernel shows of routing.
type seenRouting struct {
	Ours  routing.State
	Facts routing.Facts
}

func routingSeen(ctx context.Context, o Options) (seenRouting, error) {
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return seenRouting{}, err
	}
	defer k.Close()
	ours, facts, err := k.Observe(ctx, nil)
	return seenRouting{ours, facts}, err
}

// sysctlText is the kernel parameters that decide ways.
func sysctlText() string {
	var out strings.Builder
	for _, pattern := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/src_valid_mark", "net/ipv4/conf/*/forwarding",
		"net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/accept_ra", "net/ipv6/conf/*/disable_ipv6",
		"net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max", "net/core/rmem_max",
	} {
		files, _ := filepath.Glob("/proc/sys/" + pattern) // the patterns are right
		for _, f := range files {
			value, err := os.ReadFile(f)
			if err == nil {
				fmt.Fprintf(&out, "%s = %s\n", strings.TrimPrefix(f, "/proc/sys/"), strings.TrimSpace(string(value)))
			}
		}
	}
	return out.String()
}
