package configs

import (
	"slices"
	"strings"
)

// nearest returns the candidate that word is most likely a misspelling of, or
// "" when none is near.
func nearest(word string, candidates []string) string {
	best, bestAt := "", 0
	for _, c := range candidates {
		d := distance(strings.ToLower(word), c)
		if len(word) >= 3 && strings.HasPrefix(c, word) {
			d = 1
		}
		if d > max(1, min(len(word), len(c))/3) {
			continue
		}
		if best == "" || d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, substitutions and swaps of
// neighbours between a and b (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// thereAre says which names could have been meant: "there is wg0", "there are
// domestic, foreign".
func thereAre(names []string) string {
	switch len(names) {
	case 0:
		return "there is none"
	case 1:
		return "there is " + names[0]
	}
	return "there are " + strings.Join(names, ", ")
}

// oneOf lists words as a choice: "a, b or c".
func oneOf(words []string) string {
	words = slices.Clone(words)
	if n := len(words); n > 1 {
		words = append(words[:n-2], words[n-2]+" or "+words[n-1])
	}
	return strings.Join(words, ", ")
}
