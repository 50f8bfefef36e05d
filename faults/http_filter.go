package faults

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// httpMeaning is what the gate needs to know of a rule.
type httpMeaning struct {
	filter httpFilter
	delay  spread
	answer httpAnswer // nil: the server answers
	change httpChange
}

// fits says whether a request is meant.
func (m httpMeaning) fits(r *http.Request) bool {
	if _, grpc := m.answer.(httpGRPC); grpc && !isGRPC(r) {
		return false
	}
	return m.filter.fits(r)
}

// httpFilter chooses requests; everything that is given must fit.
type httpFilter struct {
	methods, paths, hosts []string
	headers               []headerPattern
}

// headerPattern is a header that a request must have, with a value that fits the glob.
type headerPattern struct{ name, glob string }

func (h HTTP) filter() (f httpFilter, err error) {
	for _, method := range h.Methods {
		if !isToken(method) {
			return f, fmt.Errorf("methods: %q is no method; write it as GET", method)
		}
		if upper := strings.ToUpper(method); upper != method && slices.Contains(commonMethods(), upper) {
			return f, fmt.Errorf("methods: %q would fit no request, as methods have capitals; write it as %s", method, upper)
		}
	}
	for _, path := range h.Paths {
		if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "*") {
			return f, fmt.Errorf("paths: %q is no path; it must begin with / or *", path)
		}
		if strings.Contains(path, "#") {
			return f, fmt.Errorf("paths: %q has a #; what follows it is never sent, leave it out", path)
		}
		if before, query := cutQuery(path); query {
			return f, fmt.Errorf("paths: %q has a query, and paths are compared without theirs; give %s", path, before)
		}
	}
	for _, host := range h.Hosts {
		host = strings.ToLower(host)
		if !isASCII(host) {
			return f, fmt.Errorf("hosts: %q has letters that are sent in another form; write it in that, which has xn-- in it", host)
		}
		if strings.ContainsAny(host, "/ @") {
			return f, fmt.Errorf("hosts: %q is no host; write it as example.com or *.example.com, without a port", host)
		}
		if name, port, err := net.SplitHostPort(host); err == nil && isNumber(port) {
			return f, fmt.Errorf("hosts: %q has a port, and hosts are compared without theirs; give %s, and the port as ports", host, name)
		}
		f.hosts = append(f.hosts, strings.Trim(host, "[]"))
	}
	for _, text := range h.Headers {
		name, glob, valued := strings.Cut(text, ":")
		if !isToken(name) {
			return f, fmt.Errorf("headers: %q is no header; write it as X-Test, or X-Test: a*", text)
		}
		if strings.EqualFold(name, "Host") {
			return f, fmt.Errorf("headers: %q is chosen by hosts; give it there", text)
		}
		if slices.Contains(unseenHeaders(), http.CanonicalHeaderKey(name)) {
			return f, fmt.Errorf("headers: %q is about how the request is sent, which is not seen; choose by another header", text)
		}
		if !valued {
			glob = "*"
		}
		f.headers = append(f.headers, headerPattern{http.CanonicalHeaderKey(name), strings.TrimSpace(glob)})
	}
	f.methods, f.paths = h.Methods, h.Paths
	return f, nil
}

// cutQuery gives what is before a query, such as ?a=b; else a ? is a sign of the glob.
func cutQuery(path string) (before string, query bool) {
	names, _, valued := strings.Cut(path, "=")
	mark := strings.LastIndex(names, "?")
	if !valued || mark < 0 || strings.Contains(names[mark:], "/") {
		return path, false
	}
	return path[:mark], true
}

// unseenHeaders are those that net/http takes out of a request.
func unseenHeaders() []string { return []string{"Trailer", "Transfer-Encoding"} }

func (f httpFilter) fits(r *http.Request) bool {
	if len(f.methods) > 0 && !slices.Contains(f.methods, r.Method) {
		return false
	}
	if len(f.paths) > 0 && !anyGlobFits(f.paths, pathOf(r)) {
		return false
	}
	if len(f.hosts) > 0 && !anyGlobFits(f.hosts, hostOf(r)) {
		return false
	}
	for _, p := range f.headers {
		if !slices.ContainsFunc(r.Header[p.name], func(value string) bool { return fitsGlob(p.glob, value) }) {
			return false
		}
	}
	return true
}

func anyGlobFits(globs []string, text string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return fitsGlob(glob, text) })
}

// pathOf is the path as it is written in the request.
func pathOf(r *http.Request) string {
	if !strings.HasPrefix(r.RequestURI, "/") {
		return r.URL.EscapedPath() // of a request to a proxy
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}

// hostOf is the host that is asked for, in lower case and without its port.
func hostOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// commonMethods are those that programs send, all in capitals. Letters of others may be of either case.
func commonMethods() []string {
	return []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace}
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// tokenSigns are allowed in names of methods and headers beside letters and digits (RFC 9110).
const tokenSigns = "!#$%&'*+-.^_`|~"

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune(tokenSigns, c)
	}) < 0
}
