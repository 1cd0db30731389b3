package conformance_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRowsAreShownWhereREADMESays holds README.md's table against the tests: a
// row stands in the comment of a test in each of the files that the table names
// for it, and a test that names a row is in the table.
func TestRowsAreShownWhereREADMESays(t *testing.T) {
	table, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rowName := regexp.MustCompile(`\b[PSRNFLCU]-\d\d\b`)
	said := map[string][]string{}
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !rowName.MatchString(cells[1]) {
			continue
		}
		for _, file := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
			said[strings.TrimSpace(cells[1])] = append(said[strings.TrimSpace(cells[1])], file[1])
		}
	}
	shown := map[string][]string{}
	comment := regexp.MustCompile(`(?m)^\s*(?://|#).*\(SECURITY\s([^)]*)`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".rpl") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel("../..", path)
		for _, c := range comment.FindAllSubmatch(text, -1) {
			for _, row := range rowName.FindAllString(string(c[1]), -1) {
				if !slices.Contains(shown[row], file) {
					shown[row] = append(shown[row], file)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere, _ := strings.Cut(string(table), "\nNot here: ")
	for group, last := range map[string]int{"P": 21, "S": 22, "R": 27, "N": 25, "F": 37, "L": 16, "C": 11, "U": 12} {
		for i := range last {
			row := fmt.Sprintf("%s-%02d", group, i+1)
			if (said[row] == nil) != strings.Contains(elsewhere, row) {
				t.Errorf("README.md: %s has a test, or a reason to have none", row)
			}
		}
	}
	for row, files := range said {
		for _, file := range files {
			if !slices.Contains(shown[row], file) {
				t.Errorf("README.md: %s is not named by a test in %s", row, file)
			}
		}
	}
	for row, files := range shown {
		for _, file := range files {
			if !slices.Contains(said[row], file) {
				t.Errorf("README.md: %s is not said to be shown in %s", row, file)
			}
		}
	}
}
