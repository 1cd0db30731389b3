package draft_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"smartdns/configs"
	"smartdns/configs/draft"
	"smartdns/resolver/dnsname"
)

// Where the longest name decides there, the first line that matches decides the
// same here, whatever the order of the old file.
func TestTheLongestNameStillDecides(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	name := func() string {
		var labels []string
		for range 1 + random.IntN(4) {
			labels = append(labels, string(rune('a'+random.IntN(3))))
		}
		return strings.Join(labels, ".") + ".example"
	}
	for range 200 {
		said := map[string]string{}
		var dnsmasq, pymumu strings.Builder
		pymumu.WriteString("server 192.0.2.9\n")
		for n := range 4 {
			fmt.Fprintf(&pymumu, "server 192.0.2.%d -group g%d -exclude-default-group\n", n, n)
		}
		for range 12 {
			n := name()
			if _, twice := said[n]; twice {
				continue
			}
			k := random.IntN(5)
			if k == 4 {
				said[n] = "answer"
				fmt.Fprintf(&dnsmasq, "address=/%s/\n", n)
				fmt.Fprintf(&pymumu, "address /%s/#\n", n)
				continue
			}
			said[n] = fmt.Sprintf("192.0.2.%d", k)
			fmt.Fprintf(&dnsmasq, "server=/%s/192.0.2.%d\n", n, k)
			fmt.Fprintf(&pymumu, "nameserver /%s/g%d\n", n, k)
		}
		dnsmasq.WriteString("server=192.0.2.9\n")
		for program, text := range map[draft.Program]string{draft.Dnsmasq: dnsmasq.String(), draft.Pymumu: pymumu.String()} {
			host := fstest.MapFS{"it": {Data: []byte(text)}}
			d, err := draft.From([]string{string(program) + ":/it"}, draft.Options{Host: host})
			if err != nil {
				t.Fatal(err)
			}
			c, err := configs.Parse(strings.NewReader(d.Text()), "smartdns.toml")
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				asked := name()
				want := "192.0.2.9"
				for n, more := asked, true; more; _, n, more = strings.Cut(n, ".") {
					if s, ok := said[n]; ok {
						want = s
						break
					}
				}
				if got := firstLine(t, c, asked); got != want {
					t.Fatalf("%s: %s goes to %s, want %s\n%s\n%s", program, asked, got, want, text, d.Text())
				}
			}
		}
	}
}

// firstLine returns the first server of whom the lines ask about a name, or
// "answer".
func firstLine(t *testing.T, c *configs.Config, name string) string {
	t.Helper()
	fqdn, err := dnsname.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Decide.Names {
		for _, m := range r.Match {
			if m.Kind != configs.MatchAll && (m.Kind != configs.MatchSuffix || !m.Name.Contains(fqdn)) {
				continue
			}
			if r.Answer.Kind != configs.AnswerNone {
				return "answer"
			}
			for _, s := range c.Sides {
				if s.Name == r.Ask {
					return s.Servers[0].Text
				}
			}
		}
	}
	return "nobody"
}
