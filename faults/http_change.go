package faults

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// httpChange is what is changed of a request, and of its response, on their way.
type httpChange struct {
	request, response         headerChanges
	requestBody, responseBody *string
}

func (c httpChange) ofRequest() bool  { return len(c.request) > 0 || c.requestBody != nil }
func (c httpChange) ofResponse() bool { return len(c.response) > 0 || c.responseBody != nil }

// changeRequest is for a request that is about to be sent.
func (c httpChange) changeRequest(r *http.Request) {
	for _, h := range c.request {
		if h.name == "Host" {
			r.Host = h.value
		}
	}
	c.request.apply(r.Header)
	r.Header.Del("Host")
	if c.requestBody != nil {
		r.Body, r.ContentLength, r.Trailer = bodyOf(*c.requestBody), int64(len(*c.requestBody)), nil
		if *c.requestBody == "" {
			r.Body = http.NoBody
		}
		withoutForm(r.Header)
	}
}

// changeResponse says whether anything of it was changed.
func (c httpChange) changeResponse(r *http.Response) bool {
	changed := c.response.apply(r.Header)
	// What follows another protocol is no body.
	if c.responseBody == nil || r.StatusCode == http.StatusSwitchingProtocols || bodiless(r.StatusCode) || r.Request.Method == http.MethodHead {
		return changed
	}
	_ = r.Body.Close()
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = bodyOf(*c.responseBody), int64(len(*c.responseBody)), nil, nil
	withoutForm(r.Header)
	r.Header.Set("Content-Length", strconv.Itoa(len(*c.responseBody)))
	return true
}

func bodyOf(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

// withoutForm takes out what was true of the former body.
func withoutForm(header http.Header) {
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Md5", "Digest", "Content-Digest", "Etag"} {
		header.Del(name)
	}
}

// headerChange sets a header, or takes it out.
type headerChange struct {
	name, value string
	out         bool
}

type headerChanges []headerChange

// apply says whether anything was changed.
func (c headerChanges) apply(header http.Header) (changed bool) {
	for _, h := range c {
		if _, had := header[h.name]; had || !h.out {
			changed = true
		}
		header.Del(h.name)
		if !h.out {
			header.Set(h.name, h.value)
		}
	}
	return changed
}

// framing are headers that say how messages are told apart, or are about the connection alone.
func framing() []string {
	return []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
}

// parseHeaderChanges reads "Name: value" and "-Name".
func parseHeaderChanges(field string, texts []string) (changes headerChanges, err error) {
	for _, text := range texts {
		name, value, set := strings.Cut(text, ":")
		if !set {
			name = strings.TrimPrefix(name, "-")
		}
		c := headerChange{http.CanonicalHeaderKey(name), strings.TrimSpace(value), !set}
		if !isToken(name) || !set && name == text {
			return nil, fmt.Errorf("%s: %q is no change; write it as X-Test: a, which sets it, or -X-Test, which takes it out", field, text)
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, fmt.Errorf("%s: %q has a control character in its value", field, text)
		}
		if slices.Contains(framing(), c.name) || c.name == "Host" && (c.out || field == "responseHeaders") {
			return nil, fmt.Errorf("%s: %s is of the connection, not of what it carries; it cannot be changed", field, c.name)
		}
		changes = append(changes, c)
	}
	return changes, nil
}
