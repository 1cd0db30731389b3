package daemon

import (
	"fmt"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/resolver/policy"
)

// Too many kinds of clients are an error with a place.
func TestTooManyClassesOfClientsAreLocated(t *testing.T) {
	if configs.MaxLimited != policy.MaxLimited {
		t.Errorf("the parser takes %d lines for some clients, the policy %d", configs.MaxLimited, policy.MaxLimited)
	}
	var text strings.Builder
	text.WriteString("[decide]\nnames = [\n")
	for kind, client := range []string{"192.168.%d.%d", "02:00:00:00:%02x:%02x"} {
		for line := range 10 { // each client has lines of its own: those whose bit it has
			var clients []string
			for i := 1; i < 300; i++ {
				if i>>line&1 != 0 {
					clients = append(clients, fmt.Sprintf("\""+client+"\"", i>>8, i&0xff))
				}
			}
			if len(clients) > 0 {
				fmt.Fprintf(&text, "{ match = \"x%d-%d.example\", answer = \"block\", clients = [%s] },\n", kind, line, strings.Join(clients, ", "))
			}
		}
	}
	text.WriteString("{ match = \"*\", ask = \"auto\" },\n]\n")
	c, err := configs.Parse(strings.NewReader(text.String()), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = (&Parts{Config: c}).views(1)
	if err == nil || !strings.HasPrefix(err.Error(), "smartdns.toml:20: [decide] names[17] clients: the clients of the lines fall into 90000 classes") {
		t.Errorf("%v", err)
	}
}
