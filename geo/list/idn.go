package list

import (
	"unicode/utf8"

	"golang.org/x/net/idna"

	"smartdns/resolver/dnsname"
)

// internationalName converts a name in Unicode to its xn-- form, as RFC 5891
// section 5 says for look-ups.
func internationalName(text []byte) (name dnsname.FQDN, reason string) {
	if !utf8.Valid(text) {
		return "", "not UTF-8: save the list as UTF-8"
	}
	ascii, err := idna.Lookup.ToASCII(string(text))
	if err != nil {
		return "", "not an international name: " + err.Error()
	}
	name, err = dnsname.Parse(ascii)
	if err != nil {
		return "", err.Error()
	}
	return name, ""
}
