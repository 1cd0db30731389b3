package configs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
)

func TestReferenceIsTheDefault(t *testing.T) {
	cfg := mustParse(t, configs.Reference())
	if diff := cmp.Diff(configs.Default(), cfg, sameConfig); diff != "" {
		t.Errorf("(-default +reference)\n%s", diff)
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("the reference warns: %v", w)
	}
}

// withExamples turns the commented-out examples of the reference on, in the
// place of the defaults of the same keys.
func withExamples(reference string) string {
	var lines []string
	assign := regexp.MustCompile(`^(\w+)\s*=`)
	example := regexp.MustCompile(`^(\s*)#([^# ].*)$`)
	table := 0
	for line := range strings.Lines(reference) {
		line = strings.TrimSuffix(line, "\n")
		if m := example.FindStringSubmatch(line); m != nil {
			line = m[1] + m[2]
			if key := assign.FindString(line); key != "" {
				lines = slices.Concat(lines[:table], slices.DeleteFunc(slices.Clone(lines[table:]), func(l string) bool {
					return strings.HasPrefix(l, key)
				}))
			}
		}
		lines = append(lines, line)
		if strings.HasPrefix(line, "[") {
			table = len(lines)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestReferenceExamplesWork(t *testing.T) {
	cfg := mustParse(t, withExamples(configs.Reference()))
	if len(cfg.Tunnels) != 1 || len(cfg.Listen.LAN) != 1 || len(cfg.Lists) != 6 || len(cfg.Decide.Names) != 8 || len(cfg.Sides) != 3 || len(cfg.Decide.Addresses) != 3 || len(cfg.Decide.Clients) != 1 {
		t.Errorf("the examples are not all there:\n%s", cfg.Text())
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("the examples warn: %v", w)
	}
	checkRoundTrip(t, cfg)
}

func TestReferenceFitsAScreen(t *testing.T) {
	const width, height = 80, 60
	start, number := 0, 0
	for line := range strings.Lines(configs.Reference()) {
		number++
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
			t.Errorf("line %d has %d columns", number, n)
		}
		if strings.HasPrefix(strings.TrimPrefix(line, "#"), "[") {
			start = number
		}
		if number-start == height {
			t.Errorf("the table at line %d is longer than a screen", start)
		}
	}
}

func TestExamplesParseWithoutAWarning(t *testing.T) {
	names, err := filepath.Glob("examples/*.toml")
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			cfg := mustParse(t, string(text))
			if w := cfg.Warnings(); len(w) > 0 {
				t.Errorf("warnings: %v", w)
			}
			checkRoundTrip(t, cfg)
			if len(cfg.Tunnels) != 1 {
				t.Errorf("%d tunnels", len(cfg.Tunnels))
			}
		})
	}
}
