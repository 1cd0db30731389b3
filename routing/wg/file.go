package wg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseFile reads the wg-quick file at path. The file holds a private key, so
// that nobody but its owner may be able to read it; a symbolic link is followed
// and its target judged. Errors are those of Parse, or wrap an *fs.PathError.
func ParseFile(path string) (*Config, error) {
	// Not to hang on a FIFO; its kind is looked at next.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the tunnel's file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the tunnel's file: %w", err)
	}
	name := filepath.Base(path)
	if !info.Mode().IsRegular() {
		return nil, &Error{File: name, Text: "is not a regular file"}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, &Error{File: name, Text: fmt.Sprintf(
			"mode %04o lets others at the private key: chmod 600 %s", mode, shellWord(path))}
	}
	return Parse(f, name)
}

// shellWord returns path as a word that a shell takes literally.
func shellWord(path string) string {
	for _, c := range []byte(path) {
		plain := c == '/' || c == '.' || c == '-' || c == '_' || c == '+' || c == '@' ||
			'0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !plain {
			return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
	}
	return path
}
