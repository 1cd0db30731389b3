package configs_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
)

func TestLoadSaysThatAFileIsNotThere(t *testing.T) {
	_, err := configs.Load(filepath.Join(t.TempDir(), "smartdns.toml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %v, want fs.ErrNotExist", err)
	}
}

func TestParseSaysThatReadingFailed(t *testing.T) {
	if _, err := configs.Parse(iotest.ErrReader(io.ErrClosedPipe), "f"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Parse = %v, want io.ErrClosedPipe", err)
	}
}

func TestParseRefusesWhatIsNoText(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"larger than any configuration", strings.Repeat("#\n", 1<<19+1), "smartdns.toml:524289: the file is larger than 1 MiB: put long lists into files and name them in [list.NAME]"},
		{"not UTF-8", "[decide]\nhome = \"\xff\"\n", "smartdns.toml:2: invalid UTF-8 character in basic string"},
		{"zero bytes", "\x00\x00\x00\x00", "smartdns.toml:1: invalid character at start of key: U+0000"},
		{"an ESC in a string", "[decide]\nhome = \"\x1b[2J\"\n", "smartdns.toml:2: basic strings cannot have control characters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := configs.Parse(strings.NewReader(tt.text), "smartdns.toml")
			if err == nil || cfg != nil {
				t.Fatalf("Parse = %v, %v", cfg, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTheNameOfTheFileIsEscapedToo(t *testing.T) {
	_, err := configs.Parse(strings.NewReader("x"), "/etc/a\n\x1b[31m\u202e.toml")
	if want := `a\n\x1b[31m\u202e.toml:1: expected '=' after key`; err == nil || err.Error() != want {
		t.Errorf("Parse = %v, want %s", err, want)
	}
}

// goodTexts returns texts that parse: the seeds of the fuzzers, and the files
// that are cut off at each byte.
func goodTexts(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{
		"reference":               configs.Reference(),
		"reference with examples": withExamples(configs.Reference()),
	}
	for _, name := range []string{"examples/host.toml", "examples/gateway.toml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

// A file that is cut off anywhere is refused, or means what its whole lines
// say: never a number that lost digits, never half a list.
func TestHalfWrittenFileNeverMeansSomethingElse(t *testing.T) {
	for name, text := range goodTexts(t) {
		t.Run(name, func(t *testing.T) {
			whole := make(map[int]string) // what the first lines say, by where they end
			for end := 0; end <= len(text); end++ {
				if end == 0 || text[end-1] == '\n' {
					if cfg, err := configs.Parse(strings.NewReader(text[:end]), "smartdns.toml"); err == nil {
						whole[end] = cfg.Text()
					}
				}
			}
			taken, refused := 0, 0
			for n := range len(text) {
				cfg, err := configs.Parse(strings.NewReader(text[:n]), "smartdns.toml")
				if err != nil {
					checkErrorForm(t, err)
					refused++
					continue
				}
				taken++
				before := strings.LastIndex(text[:n], "\n") + 1
				after := n + strings.Index(text[n:], "\n") + 1
				if got := cfg.Text(); got != whole[before] && got != whole[after] {
					t.Errorf("cut at byte %d (%q): neither what the whole lines before say, nor with the cut line", n, text[before:n])
				}
			}
			t.Logf("%d cut files taken, %d refused", taken, refused)
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range goodTexts(f) {
		f.Add(text)
		for _, n := range []int{len(text) / 4, len(text) / 2, len(text) * 3 / 4} {
			f.Add(text[:n])
			f.Add(text[n:])
		}
	}
	for _, file := range readBadFiles(f) {
		for _, c := range file.cases {
			f.Add(c.input)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := configs.Parse(strings.NewReader(text), "smartdns.toml")
		if err != nil {
			if cfg != nil {
				t.Error("an error and a Config")
			}
			checkErrorForm(t, err)
			return
		}
		cfg.Warnings()
		checkRoundTrip(t, cfg)
	})
}
