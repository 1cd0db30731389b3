package units_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smartdns/configs/units"
)

// tree is every file below root, with its content.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, root)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func did(all []units.Outcome, what units.Done) (paths []string) {
	for _, o := range all {
		if o.Done == what {
			paths = append(paths, o.Path)
		}
	}
	return paths
}

func TestUninstallRemovesWhatInstallWrote(t *testing.T) {
	for _, i := range units.Inits() {
		root := t.TempDir()
		put(t, root+"/etc/systemd/system/other.service", "[Unit]\n")
		put(t, root+"/etc/systemd/system/smartdns.service.d/override.conf", "[Service]\nNice=5\n")
		put(t, root+"/etc/smartdns/smartdns.toml", "")
		before := tree(t, root)
		files := units.Files(i, variants["tunnels"])
		done, err := units.Install(root, files)
		if err != nil || len(did(done, units.Wrote)) != len(files) {
			t.Fatal(i, done, err)
		}
		if done, err = units.Install(root, files); err != nil || len(did(done, units.Same)) != len(files) {
			t.Errorf("%s again: %v, %v", i, done, err)
		}
		done, err = units.Uninstall(root, false)
		if err != nil || len(did(done, units.Removed)) != len(files) {
			t.Error(i, done, err)
		}
		if after := tree(t, root); !maps.Equal(before, after) {
			t.Errorf("%s: left behind or lost:\n%v\n%v", i, before, after)
		}
	}
}

// The unit of far ends comes and goes by itself, and goes with everything else.
func TestFarEndsHaveAUnitOfTheirOwn(t *testing.T) {
	root := t.TempDir()
	unit := root + "/etc/systemd/system/smartdns-peer@.service"
	there := func() bool { _, err := os.Stat(unit); return err == nil }
	for _, alone := range []bool{true, false} {
		if done, err := units.Add(root, units.PeerFiles(units.Boot{Program: "/opt/smartdns", Config: "/etc/x.toml"})); err != nil || len(done) != 1 || done[0].Done != units.Wrote {
			t.Fatal(done, err)
		}
		text, err := os.ReadFile(unit)
		if err != nil || !strings.Contains(string(text), "\nExecStart=/opt/smartdns peer run $FLAGS %i\n") {
			t.Errorf("%v\n%s", err, text)
		}
		main, err := units.Install(root, units.Files(units.Systemd, units.Boot{}))
		if err != nil || !there() {
			t.Errorf("an installation of the rest takes it away: %v, %v", main, err)
		}
		link := root + "/etc/systemd/system/multi-user.target.wants/smartdns-peer@exit.service"
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(unit, link)); err != nil {
			t.Fatal(err)
		}
		if on, err := units.Enabled(root, alone); err != nil || !slices.Equal(on, []string{link}) {
			t.Errorf("enabled: %v, %v", on, err)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		done, err := units.Uninstall(root, alone)
		if err != nil || there() || (len(done) == 1) != alone {
			t.Errorf("alone %t: %v, %v", alone, done, err)
		}
		if _, err := os.Stat(root + "/etc/systemd/system/smartdns.service"); (err == nil) != alone {
			t.Errorf("alone %t: the other unit: %v", alone, err)
		}
	}
}

func TestInstallLeavesAloneWhatIsNotIts(t *testing.T) {
	unit, modules := "/etc/systemd/system/smartdns.service", "/etc/modules-load.d/smartdns.conf"
	root := t.TempDir()
	put(t, root+unit, "[Service]\nExecStart=/usr/bin/mine\n")
	put(t, root+modules, "tun\n")
	before := tree(t, root)
	done, err := units.Install(root, units.Files(units.Systemd, units.Boot{}))
	if !errors.Is(err, units.ErrForeign) || !strings.Contains(err.Error(), unit) || !strings.Contains(err.Error(), modules) || len(done) != 0 {
		t.Errorf("%v, %v", done, err)
	}
	if !maps.Equal(before, tree(t, root)) {
		t.Error("something was written all the same")
	}
	if done, err := units.Uninstall(root, false); err != nil || len(done) != 0 {
		t.Errorf("uninstall: %v, %v", done, err)
	}
	if err := os.Remove(root + unit); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", root+unit); err != nil { // systemctl mask
		t.Fatal(err)
	}
	if _, err := units.Install(root, units.Files(units.Systemd, units.Boot{})); !errors.Is(err, units.ErrForeign) {
		t.Errorf("a masked unit: %v", err)
	}
}

func TestWhatWasEditedStays(t *testing.T) {
	root := written(t, units.Systemd, variants["tunnels"])
	unit := root + "/etc/systemd/system/smartdns.service"
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	put(t, unit, strings.Replace(string(text), "MemoryMax=256M", "MemoryMax=1G", 1))
	if _, err := units.Install(root, units.Files(units.Systemd, units.Boot{})); !errors.Is(err, units.ErrForeign) || !strings.Contains(err.Error(), "edited") {
		t.Errorf("install: %v", err)
	}
	done, err := units.Uninstall(root, false)
	if kept := did(done, units.Kept); err != nil || !slices.Equal(kept, []string{unit}) {
		t.Errorf("uninstall: %v, %v", done, err)
	}
	if left := tree(t, root); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A file of settings is the user's from the moment it is there.
func TestSettingsStay(t *testing.T) {
	root := written(t, units.Procd, units.Boot{})
	conf := root + "/etc/config/smartdns"
	put(t, conf, "config smartdns 'main'\n\toption enabled '1'\n")
	done, err := units.Install(root, units.Files(units.Procd, variants["tunnels"]))
	if kept := did(done, units.Kept); err != nil || !slices.Equal(kept, []string{conf}) {
		t.Errorf("%v, %v", done, err)
	}
	if text, _ := os.ReadFile(conf); !strings.Contains(string(text), "enabled '1'") {
		t.Errorf("%s", text)
	}
}

// What a former configuration needed goes with it.
func TestInstallAgainFollowsTheConfiguration(t *testing.T) {
	root := written(t, units.Systemd, variants["tunnels"])
	done, err := units.Install(root, units.Files(units.Systemd, units.Boot{}))
	if gone := did(done, units.Removed); err != nil || len(gone) != 2 {
		t.Errorf("%v, %v", done, err)
	}
	if _, err := os.Stat(root + "/etc/systemd/system/smartdns.service.d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty directory: %v", err)
	}
}

func TestKnowsTheOtherProgramOfThisName(t *testing.T) {
	root := t.TempDir()
	if other := units.Other(root); other != "" {
		t.Errorf("%s in nothing", other)
	}
	put(t, root+"/etc/systemd/system/smartdns.service", "[Service]\nExecStart=/usr/sbin/smartdns run\n")
	if other := units.Other(root); other != "" {
		t.Errorf("%s is one of ours", other)
	}
	put(t, root+"/lib/systemd/system/smartdns.service", "[Service]\nEnvironmentFile=/etc/default/smartdns\nExecStart=/usr/sbin/smartdns -p /var/run/smartdns.pid $SMART_DNS_OPTS\n")
	if other := units.Other(root); !strings.HasSuffix(other, "/lib/systemd/system/smartdns.service") {
		t.Errorf("not seen: %q", other)
	}
}

func TestEnabledFollowsOurUnitAlone(t *testing.T) {
	root := t.TempDir()
	link := root + "/etc/systemd/system/multi-user.target.wants/smartdns.service"
	put(t, link, "") // of the other program
	if on, err := units.Enabled(root, false); err != nil || len(on) != 0 {
		t.Errorf("%v, %v", on, err)
	}
	if _, err := units.Install(root, units.Files(units.Systemd, units.Boot{})); err != nil {
		t.Fatal(err)
	}
	if on, err := units.Enabled(root, false); err != nil || !slices.Equal(on, []string{link}) {
		t.Errorf("%v, %v", on, err)
	}
}
