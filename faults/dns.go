package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/miekg/dns"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// DNS hurts queries that the target sends to port 53, by UDP and TCP: they come to a responder of ours in the target's network
// namespace, which answers in the server's place or passes them on.
type DNS struct {
	// Names are exact ("example.com"), suffixes (".example.com", with what it is the suffix of itself) or globs ("*.example.com"); none: all.
	Names []string
	// Types are names of record types, such as "A"; none: all.
	Types []string
	// Answers is one of the words (DNSAnswerWords), or addresses and records, such as "10.1.2.3" or "MX 10 mail.example.com".
	// None: the server answers, after the delay.
	Answers []string
	// Delay is how long a query waits before it is answered or passed on.
	Delay Delay
}

// maxDNSDelay is longer than any resolver waits.
const maxDNSDelay = time.Minute

func newDNS(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetDns()
	if s == nil {
		return nil, nil
	}
	return DNS{
		Names: s.GetNames(), Types: s.GetTypes(), Answers: s.GetAnswers(), Delay: Delay{Text: s.GetDelay(), Jitter: s.GetJitter(), Distribution: s.GetDistribution()},
	}, nil
}

func dnsParameters() []Parameter {
	return []Parameter{
		{"names", "names", "only these: example.com, its subdomains too as .example.com, or globs such as *.svc.cluster.local; none: all"},
		{"types", "record types", "only queries for these, such as A or AAAA; none: all"},
		{"answers", "answers", "NXDOMAIN, SERVFAIL, REFUSED, timeout, truncated or random; or addresses and records such as 10.1.2.3 or MX 10 mail.example.com"},
		{"delay", "duration", "how long a query waits before it is answered, or passed on"},
		{"jitter", "duration", "how far the delay is spread"},
		{"distribution", "uniform|normal|exponential|pareto", "of the delay; empty: uniform"},
	}
}

// Validate implements Fault.
func (d DNS) Validate() error {
	_, err := d.rule(Common{})
	return err
}

func (d DNS) rule(common Common) (bpf.Rule, error) {
	rule := common.rule()
	rule.Action, rule.Traffic.Ports = bpf.ActionRedirect, []bpf.Ports{{Low: dnsPort, High: dnsPort}}
	var m dnsMeaning
	var err error
	if d.Delay.given() {
		if m.delay, err = d.Delay.spread(maxDNSDelay); err != nil {
			return rule, err
		}
	}
	if m.names, err = parseDNSNames(d.Names); err != nil {
		return rule, err
	}
	if m.types, err = parseDNSTypes(d.Types); err != nil {
		return rule, err
	}
	if len(d.Answers) > 0 {
		if m.answer, err = parseDNSAnswer(d.Answers); err != nil {
			return rule, err
		}
	} else if !m.delay.given() {
		return rule, errors.New("answers: missing, and there is no delay; give NXDOMAIN, SERVFAIL, REFUSED, timeout, truncated, random, addresses or records, or a delay")
	}
	rule.Meaning = m
	return rule, nil
}

// dnsMeaning is what the responder needs to know of a rule.
type dnsMeaning struct {
	names  dnsNames
	types  map[uint16]bool
	answer dnsAnswer // nil: the server answers
	delay  spread
}

// fits says whether a query is meant.
func (m dnsMeaning) fits(q dns.Question, network string) bool {
	if len(m.types) > 0 && !m.types[q.Qtype] {
		return false
	}
	if m.answer == answerTruncated && network != "udp" {
		return false
	}
	if records, is := m.answer.(dnsRecords); is && records.isAliasOf(q) {
		return false
	}
	return m.names.fit(q.Name)
}

func parseDNSTypes(names []string) (map[uint16]bool, error) {
	types := map[uint16]bool{}
	for _, name := range names {
		t, ok := dns.StringToType[name]
		if !ok || t == dns.TypeNone || t == dns.TypeOPT {
			return nil, fmt.Errorf("types: %q is no record type; give names such as A, AAAA, CNAME, SRV, MX or TXT", name)
		}
		types[t] = true
	}
	return types, nil
}

const mechanismRedirect = "redirect"

// Mechanism implements Fault.
func (d DNS) Mechanism(context.Context, Env) (string, error) { return mechanismRedirect, nil }

// Inject implements Fault.
func (d DNS) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, err := d.rule(common)
	if err != nil {
		return nil, err
	}
	homes, err := homesToStandIn(env, target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	redirect := bpf.RedirectEnv{Namespaces: namespacesOf(homes), Answer: func(s *bpf.StandIn) io.Closer { return answerDNS(s) }}
	installed, err := env.Kernel.InstallRedirect(kernelTarget(env, target), rule, redirect)
	if err != nil {
		return nil, standInRefused(err)
	}
	go coverLater(env, target, installed)
	return &ruleHandle{installed: installed, mechanism: mechanismRedirect, rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(DNS).rule(common) }}, nil
}
