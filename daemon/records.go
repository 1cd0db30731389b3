package daemon

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"smartdns/web/api"
)

// records returns what a packed answer holds besides its A and AAAA records, as
// a zone file would write it. Of what cannot be read there is nothing.
func records(msg []byte) []api.Record {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil {
		return nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil
	}
	var all []api.Record
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return all
		}
		if h.Type == dnsmessage.TypeA || h.Type == dnsmessage.TypeAAAA {
			if err := p.SkipAnswer(); err != nil {
				return all
			}
			continue
		}
		r, err := p.Answer()
		if err != nil {
			return all
		}
		all = append(all, api.Record{Name: hostText(h.Name), Type: typeText(h.Type), TTL: h.TTL, Data: dataText(r.Body)})
	}
}

func typeText(t dnsmessage.Type) string {
	if s, ok := strings.CutPrefix(t.String(), "Type"); ok {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

func dataText(b dnsmessage.ResourceBody) string {
	switch b := b.(type) {
	case *dnsmessage.CNAMEResource:
		return hostText(b.CNAME)
	case *dnsmessage.NSResource:
		return hostText(b.NS)
	case *dnsmessage.PTRResource:
		return hostText(b.PTR)
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", b.Pref, hostText(b.MX))
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", b.Priority, b.Weight, b.Port, hostText(b.Target))
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", hostText(b.NS), hostText(b.MBox), b.Serial, b.Refresh, b.Retry, b.Expire, b.MinTTL)
	case *dnsmessage.TXTResource:
		var parts []string
		for _, s := range b.TXT {
			parts = append(parts, `"`+escaped(s, `"\`)+`"`)
		}
		return strings.Join(parts, " ")
	case *dnsmessage.SVCBResource:
		return serviceText(*b)
	case *dnsmessage.HTTPSResource:
		return serviceText(b.SVCBResource)
	case *dnsmessage.UnknownResource:
		return fmt.Sprintf(`\# %d %x`, len(b.Data), b.Data) // RFC 3597 section 5
	}
	return "?"
}

// serviceText writes a service record as RFC 9460 section 2.1 does. Keys that
// it does not know are written as numbers with their value in hexadecimal.
func serviceText(s dnsmessage.SVCBResource) string {
	out := fmt.Sprintf("%d %s", s.Priority, hostText(s.Target))
	for _, p := range s.Params {
		switch v := p.Value; p.Key {
		case dnsmessage.SVCParamALPN:
			var names []string
			for len(v) > 0 && int(v[0]) < len(v) {
				names, v = append(names, escaped(string(v[1:1+v[0]]), `"\,`)), v[1+v[0]:]
			}
			out += " alpn=" + strings.Join(names, ",")
		case dnsmessage.SVCParamNoDefaultALPN:
			out += " no-default-alpn"
		case dnsmessage.SVCParamPort:
			if len(v) == 2 {
				out += fmt.Sprintf(" port=%d", int(v[0])<<8|int(v[1]))
			}
		case dnsmessage.SVCParamIPv4Hint:
			out += " ipv4hint=" + addrsText(v, 4)
		case dnsmessage.SVCParamIPv6Hint:
			out += " ipv6hint=" + addrsText(v, 16)
		default:
			out += fmt.Sprintf(" key%d=%x", p.Key, v)
		}
	}
	return out
}

func addrsText(b []byte, size int) string {
	var all []string
	for ; len(b) >= size; b = b[size:] {
		a, _ := netip.AddrFromSlice(b[:size])
		all = append(all, a.String())
	}
	return strings.Join(all, ",")
}

// hostText is a name without its last dot, the root as a dot.
func hostText(n dnsmessage.Name) string {
	s := escaped(n.String(), `"\`)
	if s == "." {
		return s
	}
	return strings.TrimSuffix(s, ".")
}

// escaped writes bytes that no terminal shows as RFC 1035 section 5.1 does.
func escaped(s, also string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		case strings.IndexByte(also, c) >= 0:
			b.WriteString(`\` + string(c))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
