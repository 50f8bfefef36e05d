package experiment

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// httpProbe makes a request. Its connections are new, or it would not see what becomes of new ones.
type httpProbe struct {
	latency
	tlsOptions
	request *v1.HttpProbe
	client  *http.Client
}

func (d *document) httpProbe(field string, m *v1.HttpProbe) check {
	p := &httpProbe{latency(d.duration(field+".latency", m.GetLatency(), leastDuration, 0)), d.tls(field+".tls", m.GetTls()), m, nil}
	if _, err := p.newRequest(context.Background()); err != nil {
		d.wrong(field+".url", "%v", err)
	}
	return p
}

func (p *httpProbe) ready() error {
	if err := p.tlsOptions.ready(); err != nil {
		return err
	}
	p.client = &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: p.config},
		// What was asked answers, not whom it points to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (p *httpProbe) newRequest(ctx context.Context) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, p.request.GetMethod(), p.request.GetUrl(), strings.NewReader(p.request.GetBody()))
	if err != nil {
		return nil, err
	}
	for name, value := range p.request.GetHeaders() {
		request.Header.Set(name, value)
		if strings.EqualFold(name, "Host") {
			request.Host = value
		}
	}
	return request, nil
}

func (p *httpProbe) ask(ctx context.Context, _ Counters) (string, error) {
	request, err := p.newRequest(ctx)
	if err != nil {
		return "", err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxValue))
	if err != nil {
		return string(body), fmt.Errorf("read the answer: %w", err)
	}
	good := response.StatusCode/100 == 2
	if want := p.request.GetStatus(); len(want) > 0 {
		good = slices.Contains(want, uint32(response.StatusCode))
	}
	if !good {
		return string(body), fmt.Errorf("status %d", response.StatusCode)
	}
	return string(body), nil
}
