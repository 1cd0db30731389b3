package update

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"
)

// Proof is what a content must show before anybody reads it. The zero Proof is
// nothing.
type Proof struct {
	SHA256   string   // of the content, 64 hex digits
	SumURL   *url.URL // or where they are: a file as sha256sum writes it
	Minisign string   // the public key; the signature lies beside each mirror's file, as .minisig
}

// text tells one Proof from another.
func (p Proof) text() string {
	at := ""
	if p.SumURL != nil {
		at = p.SumURL.String()
	}
	return strings.ToLower(p.SHA256) + " " + at + " " + p.Minisign
}

// signatureSuffix is what minisign adds to the name of a file.
const signatureSuffix = ".minisig"

// check returns an error unless the file of this hash, fetched from a mirror,
// shows what p wants. Dated is when its signature says that it was made.
func (p Proof) check(ctx context.Context, c *http.Client, from *url.URL, file, sum string) (dated time.Time, err error) {
	want := p.SHA256
	if p.SumURL != nil {
		if want, err = fetchSum(ctx, c, p.SumURL, from); err != nil {
			return dated, fmt.Errorf("reading the checksum at %s: %w", shown(p.SumURL), err)
		}
	}
	if want != "" && !strings.EqualFold(want, sum) {
		return dated, fmt.Errorf("its SHA-256 is %s, and should be %s", sum, strings.ToLower(want))
	}
	if p.Minisign == "" {
		return dated, nil
	}
	at := *from
	at.Path += signatureSuffix
	at.RawPath = ""
	signature, err := getSmall(ctx, c, &at)
	if err != nil {
		return dated, fmt.Errorf("reading the signature at %s: %w", shown(&at), err)
	}
	return checkSignature(p.Minisign, file, signature)
}

// checkSignature verifies a file's minisign signature, and returns its time,
// which its signer vouches for; zero where it has none.
func checkSignature(key, file string, signature []byte) (dated time.Time, err error) {
	var public minisign.PublicKey
	if err := public.UnmarshalText([]byte(key)); err != nil {
		return dated, err
	}
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		return dated, fmt.Errorf("what lies at %s is no minisign signature: %w", signatureSuffix, err)
	}
	if s.KeyID != public.ID() {
		return dated, fmt.Errorf("it is signed with another key, %016X, and should be with %016X", s.KeyID, public.ID())
	}
	ok, err := signed(public, s.Algorithm, file, signature)
	if err != nil {
		return dated, err
	}
	if !ok {
		return dated, errors.New("its signature is wrong: it is not what was signed")
	}
	for word := range strings.FieldsSeq(s.TrustedComment) {
		if text, ok := strings.CutPrefix(word, "timestamp:"); ok {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				dated = time.Unix(n, 0).UTC()
			}
		}
	}
	return dated, nil
}

// signed verifies either kind of signature: of the file's hash, or, as the first
// programs made them, of the file.
func signed(public minisign.PublicKey, algorithm uint16, file string, signature []byte) (bool, error) {
	if algorithm != minisign.HashEdDSA {
		content, err := os.ReadFile(file)
		return err == nil && minisign.Verify(public, content, signature), err
	}
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := minisign.NewReader(f)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return false, err
	}
	return r.Verify(public, signature), nil
}

func fetchSum(ctx context.Context, c *http.Client, at, file *url.URL) (string, error) {
	b, err := getSmall(ctx, c, at)
	if err != nil {
		return "", err
	}
	return findSum(string(b), path.Base(file.Path))
}

// findSum returns the digest that a file as sha256sum writes it has for a name,
// or its only one.
func findSum(text, name string) (string, error) {
	var only string
	lines := 0
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || len(fields) > 2 || !IsSHA256(fields[0]) {
			continue
		}
		if len(fields) == 2 && path.Base(strings.TrimPrefix(fields[1], "*")) == name {
			return fields[0], nil
		}
		only = fields[0]
		lines++
	}
	if lines != 1 {
		return "", fmt.Errorf("it has %d checksums, and none for %q", lines, name)
	}
	return only, nil
}

// IsSHA256 reports whether s is a SHA-256 digest in hex.
func IsSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}
