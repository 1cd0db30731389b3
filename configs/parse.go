package configs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxSize is the largest file that Parse takes. Long lists have files of their
// own.
const maxSize = 1 << 20

// Load reads and parses the file at path. The error of a file that is not
// there is fs.ErrNotExist.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	return Parse(f, path)
}

// Default returns the configuration of a host without a file: a resolver on
// the loopback addresses, no tunnel.
func Default() *Config {
	var p problems
	return convert(&p, new(rawConfig))
}

// Parse reads a whole configuration. The file is the path that r's content
// comes from: its last part is what errors begin with.
//
// An error joins one *Error for each thing that is wrong, in the order of the
// file, at most 20 of them. No part of a file with an error is used.
func Parse(r io.Reader, file string) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", printable(file), err)
	}
	p := problems{file: filepath.Base(file)}
	if len(data) > maxSize {
		p.addf(place{line: 1 + bytes.Count(data, []byte("\n"))}, "the file is larger than 1 MiB: put long lists into files and name them in [list.NAME]")
		return nil, p.err()
	}
	root := readTree(&p, data)
	if root == nil {
		return nil, p.err()
	}
	var raw rawConfig
	takeTable(&p, root, "", &raw)
	c := convert(&p, &raw)
	if err := p.err(); err != nil {
		return nil, err
	}
	c.File = file
	return c, nil
}
