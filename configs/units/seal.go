package units

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// sealLine is the comment by which a file is known as ours, and as untouched:
// it has the hash of all that follows it.
var sealLine = regexp.MustCompile(`(?m)^# Installed by smartdns [^\n]*sha256 ([0-9a-f]{64})\n`)

// seal returns text with its seal: on top, or below the line that names the
// interpreter.
func seal(text string) string {
	head := ""
	if strings.HasPrefix(text, "#!") {
		line, rest, _ := strings.Cut(text, "\n")
		head, text = line+"\n", rest
	}
	return head + "# Installed by smartdns install, which leaves it alone once edited: sha256 " + hash(head+text) + "\n" + text
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// sealed reports whether a file is one of ours, and whether it is as we left
// it.
func sealed(text string) (ours, untouched bool) {
	at := sealLine.FindStringSubmatchIndex(text)
	if at == nil {
		return false, false
	}
	return true, hash(text[:at[0]]+text[at[1]:]) == text[at[2]:at[3]]
}
