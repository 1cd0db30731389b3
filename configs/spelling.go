package configs

import "errors"

// The functions of this file are for those who write a file instead of reading
// one: they say beforehand what Parse would refuse.

// CheckServer returns what keeps text from being a server of a side, or nil.
func CheckServer(text string) error {
	_, err := parseServer(text)
	return err
}

// CheckMatch returns what keeps text from being an entry of a line of names, or
// nil. Whether a list that it names is there, is not looked at.
func CheckMatch(text string) error {
	_, err := parseNameMatch(text)
	return err
}

// CheckWord returns what keeps name from being that of a side or a list, or
// nil.
func CheckWord(name string) error {
	switch {
	case !isWord(name):
		return errors.New("is no " + wordRule)
	case isReserved(name) || name == AskAuto || name == GeoEmbedded:
		return errors.New("has a meaning of its own")
	}
	return nil
}

// Quote returns s as a string of TOML.
func Quote(s string) string { return tomlString(s) }

// QuoteKey returns name as a key of TOML, quoted where it must be.
func QuoteKey(name string) string { return tomlKey(name) }
