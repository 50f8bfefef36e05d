package experiment

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	v1 "faultd/api/faultd/v1alpha1"
)

// dnsProbe asks a server for a name, by TCP if the answer is too long for UDP.
type dnsProbe struct {
	latency
	query  *dns.Msg
	server string
}

func (d *document) dnsProbe(field string, m *v1.DnsProbe) check {
	kind := m.GetType()
	if kind == "" {
		kind = "A"
	}
	if _, ok := dns.IsDomainName(m.GetName()); !ok {
		d.wrong(field+".name", "%q is no name", m.GetName())
	}
	query := new(dns.Msg).SetQuestion(dns.Fqdn(m.GetName()), dns.StringToType[kind])
	return dnsProbe{latency(d.duration(field+".latency", m.GetLatency(), leastDuration, 0)), query, m.GetServer()}
}

func (p dnsProbe) ask(ctx context.Context, _ Counters) (string, error) {
	query := p.query.Copy()
	query.Id = dns.Id()
	answer, _, err := (&dns.Client{Net: "udp"}).ExchangeContext(ctx, query, p.server)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, query, p.server)
	}
	if err != nil {
		return "", err
	}
	var data []string
	for _, record := range answer.Answer {
		data = append(data, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	slices.Sort(data)
	value := strings.Join(data, " ")
	switch {
	case answer.Rcode != dns.RcodeSuccess:
		return value, fmt.Errorf("the server says %s", dns.RcodeToString[answer.Rcode])
	case len(data) == 0:
		return value, fmt.Errorf("the server has no such record")
	}
	return value, nil
}
