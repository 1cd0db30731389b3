package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
)

// answer is what a mirror said, with the body to read.
type answer struct {
	unchanged    bool // it has what we asked it about
	body         io.ReadCloser
	length       int64 // of the body, -1 when nobody has said
	etag         string
	lastModified string
}

// get asks a mirror for its file. With validators of an earlier answer of this
// URL in r, that it has not changed is an answer.
func get(ctx context.Context, c *http.Client, from *url.URL, r record) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("User-Agent", "smartdns")
	conditional := r.URL == from.String() && r.ETag+r.LastModified != ""
	if conditional {
		if r.ETag != "" {
			req.Header.Set("If-None-Match", r.ETag)
		}
		if r.LastModified != "" {
			req.Header.Set("If-Modified-Since", r.LastModified)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, plainError(err)
	}
	a := answer{
		body: resp.Body, length: resp.ContentLength,
		etag: short(resp.Header.Get("ETag")), lastModified: short(resp.Header.Get("Last-Modified")),
	}
	if refused := refuse(resp, conditional); refused != nil {
		resp.Body.Close()
		return answer{}, refused
	}
	a.unchanged = resp.StatusCode == http.StatusNotModified
	return a, nil
}

// refuse returns why an answer is not the file, whatever is in it.
func refuse(r *http.Response, conditional bool) error {
	if r.StatusCode == http.StatusNotModified && conditional {
		return nil
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("answers %d %s", r.StatusCode, http.StatusText(r.StatusCode))
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" {
		return fmt.Errorf("sends the transfer packed by %q, which nobody asked for", short(coding))
	}
	if r.ContentLength > MaxSize {
		return tooLarge()
	}
	// Without a length, only HTTP/2 frames, chunks and gzip's own end tell the
	// whole file from a part of it.
	if r.ProtoMajor == 1 && r.ContentLength < 0 && !r.Uncompressed && !slices.Contains(r.TransferEncoding, "chunked") {
		return errors.New("does not say how long the file is, so that nobody can know whether all of it came")
	}
	return nil
}

func tooLarge() error { return fmt.Errorf("the file is larger than %d MiB", MaxSize>>20) }

// short cuts a header's value to what is worth keeping.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return ""
	}
	return s
}

// plainError is err without the URL that net/http puts around it: whoever reads
// it knows what was asked for, and its query may be secret.
func plainError(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// copyAll copies a body of at most MaxSize bytes. Counted is told how much has
// come so far.
func copyAll(w io.Writer, body io.Reader, counted func(int64)) (int64, error) {
	n, err := io.Copy(w, io.TeeReader(io.LimitReader(body, MaxSize+1), counter{new(int64), counted}))
	if err != nil {
		return n, fmt.Errorf("after %d bytes: %w", n, plainError(err))
	}
	if n > MaxSize {
		return n, tooLarge()
	}
	return n, nil
}

type counter struct {
	n    *int64
	told func(int64)
}

func (c counter) Write(b []byte) (int, error) {
	*c.n += int64(len(b))
	c.told(*c.n)
	return len(b), nil
}

// maxSmall is how long a signature or a list of checksums may be.
const maxSmall = 64 << 10

// getSmall returns a small file whole.
func getSmall(ctx context.Context, c *http.Client, from *url.URL) ([]byte, error) {
	a, err := get(ctx, c, from, record{})
	if err != nil {
		return nil, err
	}
	defer a.body.Close()
	b, err := io.ReadAll(io.LimitReader(a.body, maxSmall+1))
	if err != nil {
		return nil, plainError(err)
	}
	if len(b) > maxSmall {
		return nil, fmt.Errorf("longer than %d KiB", maxSmall>>10)
	}
	return b, nil
}
