package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smartdns/configs/draft"
	"smartdns/daemon"
)

// facts are what the questions offer to choose from.
type facts struct {
	tunnels []string // wg-quick files
	links   []string // interfaces that may be a LAN's
}

// hostFacts looks at this host. What it may not see is not offered.
func hostFacts() facts {
	var f facts
	f.tunnels, _ = filepath.Glob("/etc/wireguard/*.conf")
	links, _ := net.Interfaces()
	for _, l := range links {
		if l.Flags&(net.FlagLoopback|net.FlagPointToPoint|net.FlagUp) == net.FlagUp {
			f.links = append(f.links, l.Name)
		}
	}
	return f
}

// lines reads answers, one a line.
type lines struct{ in *bufio.Reader }

func newLines(r io.Reader) lines { return lines{bufio.NewReader(r)} }

// questions ask a person. Each is asked again until its answer can be.
type questions struct {
	in  lines
	out io.Writer
}

var errNoAnswer = errors.New("no answer: nothing was written")

// one asks one question. take says what is wrong with an answer; an empty one
// means the default.
func (q questions) one(text, usual string, take func(string) error) error {
	for {
		if usual != "" {
			fmt.Fprintf(q.out, "%s [%s]: ", text, usual)
		} else {
			fmt.Fprintf(q.out, "%s: ", text)
		}
		line, err := q.in.in.ReadString('\n')
		answer := strings.TrimSpace(line)
		if err != nil && answer == "" {
			fmt.Fprintln(q.out)
			return errNoAnswer
		}
		if answer == "" {
			answer = usual
		}
		if answer == noneOfThem {
			answer = ""
		}
		if err := take(answer); err != nil {
			for _, l := range strings.Split(err.Error(), "\n") {
				fmt.Fprintln(q.out, "  "+safe(l))
			}
			continue
		}
		return nil
	}
}

const noneOfThem = "none"

func (q questions) ask(a *draft.Answers, host facts) error {
	usual := noneOfThem
	if len(host.tunnels) > 0 {
		usual = host.tunnels[0]
	}
	fmt.Fprintln(q.out, "Enter takes what stands in brackets, Ctrl-C writes nothing.")
	if err := q.one("The wg-quick file of the tunnel", usual, func(s string) error {
		var files []string
		for f := range strings.FieldsSeq(strings.ReplaceAll(s, ",", " ")) {
			if f == noneOfThem {
				continue
			}
			if _, err := daemon.ReadTunnelFile(f); err != nil {
				return err
			}
			files = append(files, f)
		}
		return q.holds(a, func(x *draft.Answers) { x.Tunnels = files })
	}); err != nil {
		return err
	}
	text := "Interfaces of the LAN to serve and route"
	if len(host.links) > 0 {
		text += " (there are " + strings.Join(host.links, " ") + ")"
	}
	if err := q.one(text, noneOfThem, func(s string) error {
		links := strings.Fields(strings.ReplaceAll(s, ",", " "))
		for _, l := range links {
			if len(host.links) > 0 && !slices.Contains(host.links, l) {
				return fmt.Errorf("there is no interface %q now", l)
			}
		}
		return q.holds(a, func(x *draft.Answers) { x.LAN = links })
	}); err != nil {
		return err
	}
	if err := q.one("Addresses to serve DNS at, beside those of the LAN", "127.0.0.1 ::1", func(s string) error {
		all := strings.Fields(strings.ReplaceAll(s, ",", " "))
		if slices.Equal(all, []string{"127.0.0.1", "::1"}) {
			all = nil
		}
		return q.holds(a, func(x *draft.Answers) { x.Listen = all })
	}); err != nil {
		return err
	}
	if err := q.one("Shall this host itself ask smartdns, too? yes or no", "yes", func(s string) error {
		switch strings.ToLower(s) {
		case "y", "yes":
			a.System = true
		case "n", "no":
			a.System = false
		default:
			return errors.New("yes or no")
		}
		return nil
	}); err != nil {
		return err
	}
	return q.home(a)
}

// home asks for the country, and for its prefixes and servers where it is not
// the usual one.
func (q questions) home(a *draft.Answers) error {
	home := ""
	if err := q.one("The country that is home, as its two letters", "CN", func(s string) error {
		if len(s) != 2 {
			return errors.New(`two letters, such as CN`)
		}
		home = strings.ToUpper(s)
		return nil
	}); err != nil || home == "CN" {
		return err
	}
	var file string
	if err := q.one("A file of the prefixes of "+home+", or an mmdb", "", func(s string) error {
		file = s
		_, err := os.Stat(s)
		return err
	}); err != nil {
		return err
	}
	return q.one("Servers in "+home+" to ask for names at home, such as the provider's", "", func(s string) error {
		servers := strings.Fields(strings.ReplaceAll(s, ",", " "))
		return q.holds(a, func(x *draft.Answers) { x.Home, x.HomeFile, x.Domestic = home, file, servers })
	})
}

// holds changes a if the file can say that.
func (q questions) holds(a *draft.Answers, change func(*draft.Answers)) error {
	next := *a
	change(&next)
	if _, err := draft.New(draft.Options{Answers: next}); err != nil {
		return err
	}
	*a = next
	return nil
}
