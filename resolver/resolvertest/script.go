package resolvertest

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// line is one line of a conversation, without its comment.
type line struct {
	number int
	verb   string
	words  []string
}

// rest returns the words from i on as text.
func (l line) rest(i int) string {
	if i >= len(l.words) {
		return ""
	}
	return strings.Join(l.words[i:], " ")
}

// at returns word i, "" when there is none.
func (l line) at(i int) string {
	if i >= len(l.words) {
		return ""
	}
	return l.words[i]
}

func readScript(r io.Reader) ([]line, error) {
	var lines []line
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		if words := strings.Fields(text); len(words) > 0 {
			lines = append(lines, line{n, words[0], words[1:]})
		}
	}
	return lines, s.Err()
}

// scripted is a reply as a conversation writes it:
//
//	[after 40ms] RCODE [+ad] [-opt] [RR; RR; ...]
//
// An RR is "[owner] TTL TYPE DATA"; "auth" or "add" before it puts it into
// another section, "soa ZONE TTL MINIMUM" is a SOA in the authority section.
// TYPE A without data and with a number, "A x40", makes that many records.
type scripted struct {
	after  time.Duration
	err    string // of an exchange that fails
	silent bool
	msg    *dns.Msg
	opt    bool
}

func parseReply(l line, owner string) (scripted, error) {
	s := scripted{opt: true}
	words := l.words
	if len(words) > 1 && words[0] == "after" {
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return s, err
		}
		s.after, words = d, words[2:]
	}
	switch l.verb {
	case "silent":
		s.silent = true
		return s, nil
	case "error":
		s.err = strings.Join(words, " ")
		return s, nil
	}
	s.msg = new(dns.Msg)
	return s, s.read(words, owner)
}

// read fills s.msg from words.
func (s *scripted) read(words []string, owner string) error {
	if len(words) == 0 {
		return fmt.Errorf("no response code")
	}
	code, ok := dns.StringToRcode[words[0]]
	if !ok {
		return fmt.Errorf("unknown response code %s", words[0])
	}
	s.msg.Rcode = code
	for words = words[1:]; len(words) > 0; words = words[1:] {
		switch words[0] {
		case "+ad":
			s.msg.AuthenticatedData = true
			continue
		case "-opt":
			s.opt = false
			continue
		}
		break
	}
	for text := range strings.SplitSeq(strings.Join(words, " "), ";") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := s.record(text, owner); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

func (s *scripted) record(text, owner string) error {
	section := &s.msg.Answer
	words := strings.Fields(text)
	switch words[0] {
	case "soa":
		if len(words) != 4 {
			return fmt.Errorf("want: soa ZONE TTL MINIMUM")
		}
		words = []string{words[1], words[2], "SOA", "ns." + words[1], "host." + words[1], "1", "2", "3", "4", words[3]}
		section = &s.msg.Ns
	case "auth":
		words, section = words[1:], &s.msg.Ns
	case "add":
		words, section = words[1:], &s.msg.Extra
	}
	if '0' <= words[0][0] && words[0][0] <= '9' && len(words) > 1 && dns.StringToType[words[1]] != 0 {
		words = append([]string{owner}, words...)
	}
	var count int
	if n, err := fmt.Sscanf(words[len(words)-1], "x%d", &count); n == 1 && err == nil {
		for i := range count {
			words[len(words)-1] = fmt.Sprintf("93.184.%d.%d", i/250, i%250+1)
			if err := appendRR(section, words); err != nil {
				return err
			}
		}
		return nil
	}
	return appendRR(section, words)
}

func appendRR(section *[]dns.RR, words []string) error {
	rr, err := dns.NewRR(strings.Join(words, " "))
	if err != nil {
		return err
	}
	if rr == nil {
		return fmt.Errorf("no record")
	}
	*section = append(*section, rr)
	return nil
}

// pack returns the reply to a packed query.
func (s scripted) pack(query []byte) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	m := s.msg.Copy()
	m.Id, m.Response, m.RecursionDesired, m.RecursionAvailable, m.Question = q.Id, true, true, true, q.Question
	if s.opt && q.IsEdns0() != nil {
		m.SetEdns0(1232, q.IsEdns0().Do())
	}
	m.Compress = true
	return m.Pack()
}
