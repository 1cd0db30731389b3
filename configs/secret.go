package configs

import "strings"

// hidden stands for a password in everything that people see.
const hidden = "***"

// withoutPassword returns s with hidden in place of a password: of what stands
// before an @, behind a scheme, all but the user's name.
func withoutPassword(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	scheme := ""
	if i := strings.Index(s[:at], "://"); i >= 0 {
		scheme = s[:i+len("://")]
	}
	user, _, ok := strings.Cut(s[len(scheme):at], ":")
	if !ok { // half of something, or a token
		return scheme + hidden + s[at:]
	}
	return scheme + user + ":" + hidden + s[at:]
}

// String returns the proxy as the file writes it, but for its password.
func (p Proxy) String() string {
	switch {
	case p == Proxy{}:
		return ""
	case p.User != "":
		return p.User + ":" + hidden + "@" + p.Addr.String()
	}
	return p.Addr.String()
}
