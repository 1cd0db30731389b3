package configs

import (
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"aead.dev/minisign"

	"smartdns/routing"
)

// Fetch is where a list is fetched from. Without URLs it is not.
type Fetch struct {
	URLs     []*url.URL    // mirrors, in the order in which they are asked
	Every    time.Duration // how often
	Via      routing.Path
	SHA256   string   // of the content, in hex; "" when it need not have a certain one
	SumURL   *url.URL // where the checksums are; nil: nowhere
	Minisign string   // the public key that it has to be signed with; "" for none
}

const (
	fetchEvery = 24 * time.Hour
	leastEvery = 5 * time.Minute
	mostEvery  = 366 * 24 * time.Hour
)

// fetch reads where a list is fetched from. File says that it is read from one.
func (c converter) fetch(raw rawList, file bool) Fetch {
	out := Fetch{Every: c.duration(raw.Every, fetchEvery, leastEvery, mostEvery), Via: c.via(raw.Via, c.firstTunnel())}
	if file {
		for _, at := range []place{raw.URL.place, raw.Every.place, raw.Via.place, raw.SHA256.place, raw.Minisign.place} {
			if at.given() {
				c.addf(at, "the list is read from a file: write file or url, not both")
				break
			}
		}
		return Fetch{}
	}
	for _, item := range raw.URL.items {
		u, text := parseFetched(item.value)
		switch {
		case text != "":
			c.addf(item.place, "%s: %s", quote(item.value), text)
		case slices.ContainsFunc(out.URLs, func(o *url.URL) bool { return o.String() == u.String() }):
			c.twice(item)
		default:
			out.URLs = append(out.URLs, u)
		}
	}
	c.proof(raw, &out)
	if len(out.URLs) == 0 {
		return Fetch{}
	}
	return out
}

func (c converter) proof(raw rawList, out *Fetch) {
	if sum := raw.SHA256; sum.given() && sum.value != "" {
		if b, err := hex.DecodeString(sum.value); err == nil && len(b) == 32 {
			out.SHA256 = strings.ToLower(sum.value)
		} else if u, text := parseFetched(sum.value); text == "" {
			out.SumURL = u
		} else {
			c.addf(sum.place, "%s: write the 64 hex digits of the file's SHA-256, or the URL of a file that sha256sum wrote", quote(sum.value))
		}
	}
	if key := raw.Minisign; key.given() && key.value != "" {
		var public minisign.PublicKey
		if strings.ContainsAny(key.value, " \r\n") || public.UnmarshalText([]byte(key.value)) != nil {
			c.addf(key.place, "%s: write the key of a minisign.pub file, the line that begins with RW", quote(key.value))
			return
		}
		out.Minisign = key.value
	}
}

// parseFetched reads the URL of a list, or says what is wrong with it.
func parseFetched(text string) (_ *url.URL, wrong string) {
	const longest = 2000
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || len(text) > longest:
		return nil, "not a URL such as https://example.com/list.txt"
	case u.User != nil:
		return nil, "a URL with a password in it is shown to whoever sees this file: use a mirror that asks for none"
	case u.Fragment != "":
		return nil, "what follows # is never sent: leave it out"
	case u.Scheme == "https":
		return u, ""
	case u.Scheme != "http":
		return nil, "lists are fetched by https; a local one is [list.X] file"
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || !a.Unmap().IsPrivate() && !a.Unmap().IsLoopback() {
		return nil, "anybody on the way can change what comes by http: write https, or the address of a mirror in your own network"
	}
	return u, ""
}

func urlTexts(all []*url.URL) []string {
	out := make([]string, len(all))
	for i, u := range all {
		out[i] = u.String()
	}
	return out
}

// rows are the keys of [list.X] that say where it is fetched from.
func (f Fetch) rows() []row {
	sum := f.SHA256
	if f.SumURL != nil {
		sum = f.SumURL.String()
	}
	return []row{
		{"url", tomlStrings(urlTexts(f.URLs))},
		{"every", tomlString(shortDuration(f.Every))},
		{"via", tomlString(string(f.Via))},
		{"sha256", tomlString(sum)},
		{"minisign", tomlString(f.Minisign)},
	}
}
