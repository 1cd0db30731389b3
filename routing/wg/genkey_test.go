package wg

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// The pair of RFC 7748, section 6.1, in base64.
const (
	alicePrivate = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	alicePublic  = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

func TestPublicKeyOfThePrivateOne(t *testing.T) {
	for _, in := range []string{alicePrivate, alicePrivate + "\n", "\t" + alicePrivate + " \r\n\n"} {
		var out bytes.Buffer
		if err := WritePublicKey(&out, strings.NewReader(in)); err != nil || out.String() != alicePublic+"\n" {
			t.Errorf("%q: %q, %v", in, out.String(), err)
		}
	}
}

func TestPublicKeyRefuses(t *testing.T) {
	for _, in := range []string{"", " \n", "short", alicePrivate + "x", alicePrivate + "\n" + alicePrivate, strings.Repeat("A", 8<<10)} {
		var out bytes.Buffer
		err := WritePublicKey(&out, strings.NewReader(in))
		if err == nil || out.Len() > 0 {
			t.Errorf("%q: %q, %v", in, out.String(), err)
			continue
		}
		if word := strings.TrimSpace(in); word != "" && strings.Contains(err.Error(), word[:5]) {
			t.Errorf("the error quotes what may be a key: %v", err)
		}
	}
}

// New keys are 32 random bytes; private ones are clamped (RFC 7748 section 5).
func TestNewKeys(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		var private, shared, public bytes.Buffer
		if err := WritePrivateKey(&private); err != nil {
			t.Fatal(err)
		}
		if err := WritePresharedKey(&shared); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{private.String(), shared.String()} {
			b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(text, "\n"))
			if err != nil || len(b) != keyLen || seen[text] {
				t.Errorf("%q: %d bytes, %v, seen before: %v", text, len(b), err, seen[text])
			}
			seen[text] = true
		}
		b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(private.String()))
		if b[0]&7 != 0 || b[31]&0xc0 != 0x40 {
			t.Errorf("%q is not clamped", private.String())
		}
		if err := WritePublicKey(&public, &private); err != nil || public.Len() != 45 {
			t.Errorf("%q, %v", public.String(), err)
		}
	}
}
