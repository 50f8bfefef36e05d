package faults

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ServeHTTP hurts a request, or passes it on.
func (g *httpGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := connectionOf(r.Context())
	r, end := c.whileWanted(r)
	defer end()
	due := await(r.Context(), judgeRequest(g.rules(), r, c.server))
	if len(due) > 0 && due[len(due)-1].answer != nil {
		last := due[len(due)-1]
		for _, h := range due[:len(due)-1] {
			h.count(false) // there is nothing that could be changed
		}
		answerRequest(c, w, r, last)
		return
	}
	g.pass(w, r, due)
}

// answerRequest answers in the server's place.
func answerRequest(c *httpConnection, w http.ResponseWriter, r *http.Request, h *dueHarm) {
	if _, abort := h.answer.(httpAbort); abort {
		h.count(true)
		c.breakOff(r)
	}
	taken := takeBody(w, r, h.rule.Over())
	h.count(h.answer.give(w) == nil)
	taken()
}

// exchange is a request that is passed on with changes.
type exchange struct {
	due  []*dueHarm
	sent atomic.Bool // the request was
}

type exchangeKey struct{}

// countAtEnds counts what has not come about when its rule ends, until the result is called.
func (x *exchange) countAtEnds() (stop func()) {
	done := make(chan struct{})
	for _, h := range x.due {
		go func() {
			select {
			case <-h.rule.Over():
				h.count(h.change.ofRequest() && x.sent.Load())
			case <-done:
			}
		}()
	}
	return func() { close(done) }
}

// pass has the server answer. What is not changed goes as it came, as far as net/http lets it.
func (g *httpGate) pass(w http.ResponseWriter, r *http.Request, due []*dueHarm) {
	// The client may go on to speak while the server answers.
	_ = http.NewResponseController(w).EnableFullDuplex()
	// What the server does not say is not to be said by us.
	w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
	trace, ctx := new(httptrace.ClientTrace), r.Context()
	if len(due) > 0 {
		x := &exchange{due: due}
		defer x.countAtEnds()()
		trace.WroteHeaders = func() { x.sent.Store(true) }
		ctx = context.WithValue(ctx, exchangeKey{}, x)
	}
	if c := connectionOf(ctx); r.ProtoMajor == 1 {
		c.begin()
		trace.WroteRequest = func(wrote httptrace.WroteRequestInfo) {
			if wrote.Err == nil {
				c.wroteRequest()
			}
		}
	}
	g.proxy.ServeHTTP(asItCame{w}, r.WithContext(httptrace.WithClientTrace(ctx, trace)))
}

func changesOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil {
		return &exchange{}
	}
	return x
}

func (g *httpGate) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: rewrite, ModifyResponse: modifyResponse, ErrorHandler: breakOff, Transport: ownTransport{},
		FlushInterval: -1, BufferPool: buffers{&sync.Pool{New: func() any { return make([]byte, httpBuffer) }}}, ErrorLog: silence(),
	}
}

// ownTransport is that of the request's connection: each has its own connection to the server.
type ownTransport struct{}

// RoundTrip implements http.RoundTripper.
func (ownTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return connectionOf(r.Context()).transport.RoundTrip(r)
}

// rewrite sends the request to its server, and has everything as it came that ReverseProxy would change.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", connectionOf(r.In.Context()).server.String(), r.In.Host
	r.Out.URL.RawQuery, r.Out.URL.ForceQuery = r.In.URL.RawQuery, r.In.URL.ForceQuery
	if path := strings.TrimSuffix(r.In.RequestURI, "?"+r.In.URL.RawQuery); !strings.HasPrefix(path, "//") {
		r.Out.URL.Opaque = path // its encoding too
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = values
		}
	}
	r.Out.Trailer = r.In.Trailer // it is filled later
	for _, h := range changesOf(r.In.Context()).due {
		h.change.changeRequest(r.Out)
	}
}

// modifyResponse changes what the server answered, and counts.
func modifyResponse(r *http.Response) error {
	for _, h := range changesOf(r.Request.Context()).due {
		changed := h.rule.Alive() && h.change.changeResponse(r)
		h.count(changed || h.change.ofRequest())
	}
	if bodiless(r.StatusCode) {
		r.Body = noBody{r.Body}
	}
	if r.Close && r.StatusCode != http.StatusSwitchingProtocols && r.ProtoMajor == 1 {
		r.Header.Set("Connection", "close") // as the server does
	}
	return nil
}

// breakOff tells the client, as the server told us, that there is no answer.
func breakOff(_ http.ResponseWriter, r *http.Request, err error) {
	x := changesOf(r.Context())
	for _, h := range x.due {
		h.count(h.change.ofRequest() && x.sent.Load())
	}
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED) {
		connectionOf(r.Context()).breakOff(r)
	}
	panic(http.ErrAbortHandler)
}

// buffers implements httputil.BufferPool.
type buffers struct{ *sync.Pool }

// Get implements httputil.BufferPool.
func (b buffers) Get() []byte { return b.Pool.Get().([]byte) }

// Put implements httputil.BufferPool.
func (b buffers) Put(buffer []byte) { b.Pool.Put(buffer) } //nolint:staticcheck // the interface has slices
