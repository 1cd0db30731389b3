package daemon

import (
	"os"
	"path/filepath"

	"smartdns/configs/units"
)

// Boot returns what a unit that starts the program has to know of the
// configuration. The tunnels' files are not read.
func Boot(o Options) (units.Boot, error) {
	c, err := LoadConfig(o.Config)
	if err != nil {
		return units.Boot{}, err
	}
	b := units.Boot{Config: o.Config, Strict: c.Routing.Strict}
	if b.Config == DefaultConfig {
		b.Config = ""
	}
	for _, t := range c.Tunnels {
		b.Tunnels = append(b.Tunnels, string(t.Path))
		b.Secrets = append(b.Secrets, t.Config)
		if t.Hooks {
			b.Root = "hooks = true runs the commands of " + t.Config + " with its rights"
		}
	}
	if c.Listen.Key != "" {
		b.Secrets = append(b.Secrets, c.Listen.Key)
	}
	if c.Listen.System {
		b.Root = "[listen] system = true replaces " + resolvConf + ", which is root's"
	}
	return b, nil
}

// readable returns where a file that only root may read can be read: at its
// path, or where systemd put what it read there for us (LoadCredential). That is
// as it was when the service started.
func readable(file string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" || file == "" {
		return file
	}
	if f, err := os.Open(file); err == nil {
		f.Close()
		return file
	}
	if at := filepath.Join(dir, units.Credential(file)); exists(at) {
		return at
	}
	return file
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
