package configs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"

	"smartdns/resolver/dnsname"
)

// parseName reads a domain name as people write it: in any script, with or
// without its last dot. Octets beyond letters, digits, - and _ are escaped.
func parseName(s string) (dnsname.FQDN, error) {
	switch {
	case s == "":
		return "", errors.New("is empty")
	case strings.Trim(s, ".") == "":
		return "", errors.New(`is no name below the root: for all names write "*"`)
	case strings.HasPrefix(s, "*.") || strings.HasPrefix(s, "."):
		return "", fmt.Errorf("write %s, which means the name and all below it", quote(strings.TrimLeft(s, "*.")))
	}
	if strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) >= 0 {
		ascii, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", fmt.Errorf("is no international name (%s)", strings.TrimPrefix(err.Error(), "idna: "))
		}
		s = ascii
	}
	if c, ok := oddOctet(s); ok {
		return "", fmt.Errorf("%q does not belong in a name", c)
	}
	return dnsname.Parse(s)
}

// oddOctet finds an octet that no host name has and that is not escaped: a
// URL, a wildcard or a pattern where a name was meant.
func oddOctet(s string) (rune, bool) {
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case !isMadeOf(string(r), "_.-"):
			return r, true
		}
	}
	return 0, false
}

// parseHost reads the name of a host, as a certificate has it.
func parseHost(s string) (dnsname.FQDN, error) {
	name, err := parseName(s)
	if err == nil && !isMadeOf(string(name), ".-") {
		return "", errors.New("the name of a host is letters, digits, - and dots")
	}
	return name, err
}
