package wg

import "strings"

// Strip returns what is left of the text of a wg-quick file for `wg setconf`:
// byte for byte what `wg-quick strip` prints. Comments and secrets stay.
func Strip(text string) string {
	var b strings.Builder
	inInterface := false
	for line := range strings.Lines(text) {
		line = strings.Trim(line, " \t\n")
		key, _, _ := strings.Cut(line, "#")
		key, _, _ = strings.Cut(key, "=")
		key = strings.TrimSpace(key)
		if strings.HasPrefix(key, "[") {
			inInterface = strings.EqualFold(key, "[Interface]")
		}
		if !inInterface || !onlyQuick(key) {
			b.WriteString(line + "\n")
		}
	}
	return b.String() + "\n"
}

// onlyQuick reports whether wg(8) does not know a key of [Interface].
func onlyQuick(key string) bool {
	for _, k := range []string{"Address", "MTU", "DNS", "Table", "PreUp", "PreDown", "PostUp", "PostDown", "SaveConfig"} {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}
