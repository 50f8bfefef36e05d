package experiment

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// check is one way to ask the system.
type check interface {
	// ask gives the value, or says in what way the system is not well. It returns soon after ctx is over.
	ask(ctx context.Context, counters Counters) (string, error)
}

// readied is a check that needs something of this machine. ready says what is missing; until then nothing is asked.
type readied interface{ ready() error }

// follower is a check that remembers something from one try to the next; begin and end are called for each phase.
type follower interface {
	begin()
	end()
}

// Ready makes the probe able to ask.
func (p Probe) Ready() error {
	if r, ok := p.check.(readied); ok {
		if err := r.ready(); err != nil {
			return fmt.Errorf("probe %s: %w", p.Name, err)
		}
	}
	return nil
}

// Counters gives what a fault of the running experiment has counted; an error if it is not on.
type Counters func(ctx context.Context, fault string) (*v1.Counters, error)

// maxValue bounds what is read of an answer, keptValue what is kept of it.
const (
	maxValue  = 64 << 10
	keptValue = 200
)

// Sample is what came of a try.
type Sample struct {
	Phase Phase
	At    time.Time
	Took  time.Duration
	// Value is the answer, or the beginning of a long one.
	Value string
	// Failure says why the try failed; empty: it did not.
	Failure string
	// Turn counts how often faults began and ceased to be on; straddles: it did while the try lasted.
	Turn int
}

// Try asks until an attempt succeeds or there are no more.
func (p Probe) Try(ctx context.Context, phase Phase, counters Counters) Sample {
	var s Sample
	for attempt := range max(p.Attempts, 1) {
		if attempt > 0 && ctx.Err() != nil {
			break
		}
		s = p.attempt(ctx, counters)
		if s.Failure == "" {
			break
		}
	}
	s.Phase = phase
	return s
}

// TryOnce is Try outside of a run.
func (p Probe) TryOnce(ctx context.Context) Sample {
	if f, ok := p.check.(follower); ok {
		f.begin()
		defer f.end()
	}
	return p.Try(ctx, Before, nil)
}

func (p Probe) attempt(ctx context.Context, counters Counters) Sample {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	s := Sample{At: time.Now()}
	value, err := p.check.ask(ctx, counters)
	s.Took = time.Since(s.At)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", p.Timeout)
	}
	if err == nil && p.JSONPath != nil {
		value, err = p.JSONPath.of(value)
	}
	if err == nil {
		err = p.Tolerance.judge(value)
	}
	if most := p.maxLatency(); err == nil && most > 0 && s.Took > most {
		err = fmt.Errorf("it took %s, more than %s", s.Took.Round(10*time.Microsecond), most)
	}
	s.Value = value[:min(len(value), keptValue)]
	if err != nil {
		s.Failure = err.Error()
	}
	return s
}

// slow is a check that bounds the latency.
type slow interface{ most() time.Duration }

func (p Probe) maxLatency() time.Duration {
	if s, ok := p.check.(slow); ok {
		return s.most()
	}
	return 0
}

// latency is a bound of it; 0: none.
type latency time.Duration

func (l latency) most() time.Duration { return time.Duration(l) }

// onChaos is what a document says for "during, while a fault is on".
const onChaos = "chaos"

// probe reads a probe.
func (d *document) probe(field string, m *v1.Probe, spec *v1.ExperimentSpec) Probe {
	p := Probe{
		Name:      m.GetName(),
		Interval:  d.duration(field+".interval", m.GetInterval(), leastDuration, defaultTry),
		Timeout:   d.duration(field+".timeout", m.GetTimeout(), leastDuration, defaultTry),
		Attempts:  int(m.GetAttempts()),
		Tolerance: d.tolerance(field+".tolerance", m.GetTolerance()),
		Aborts:    m.GetOnFailure() == "abort",

		InitialDelay: d.duration(field+".initialDelay", m.GetInitialDelay(), 0, 0),
		JSONPath:     d.jsonPath(field+".jsonPath", m.GetJsonPath()),
	}
	for _, when := range m.GetWhen() {
		if when == onChaos {
			p.OnChaos, when = true, string(During)
		}
		if p.in(Phase(when)) {
			d.wrong(field+".when", "both during and chaos were given; chaos is the part of it when a fault is on")
		}
		p.When = append(p.When, Phase(when))
	}
	if len(p.When) == 0 {
		p.When = Phases()
	}
	switch c := m.GetCheck().(type) {
	case *v1.Probe_Http:
		p.Kind, p.Asks, p.check = "http", c.Http.GetUrl(), d.httpProbe(field+".http", c.Http)
	case *v1.Probe_Tcp:
		p.Kind, p.Asks, p.check = "tcp", c.Tcp.GetAddress(), d.tcpProbe(field+".tcp", c.Tcp)
	case *v1.Probe_Command:
		p.Kind, p.Asks, p.check = "command", c.Command.GetArgv()[0], d.commandProbe(field+".command", c.Command)
	case *v1.Probe_Dns:
		p.Kind, p.Asks, p.check = "dns", c.Dns.GetName()+" at "+c.Dns.GetServer(), d.dnsProbe(field+".dns", c.Dns)
	case *v1.Probe_Counter:
		p.Kind, p.Asks, p.check = "counter", c.Counter.GetFault(), d.counterProbe(field, c.Counter, spec, p)
	case *v1.Probe_Pressure:
		p.Kind, p.Asks, p.check = "pressure", c.Pressure.GetResource(), pressureProbe{c.Pressure}
	case *v1.Probe_Prometheus:
		p.Kind, p.Asks, p.check = "prometheus", c.Prometheus.GetQuery(), d.prometheusProbe(field+".prometheus", c.Prometheus)
	case *v1.Probe_Grpc:
		p.Kind, p.Asks, p.check = "grpc", c.Grpc.GetAddress(), d.grpcProbe(field+".grpc", c.Grpc)
	case *v1.Probe_Log:
		p.Kind, p.Asks, p.check = "log", c.Log.GetPath(), d.logProbe(field+".log", c.Log, p.Tolerance)
	}
	d.probeAcross(field, p)
	return p
}

// probeAcross checks what goes across the fields of a probe.
func (d *document) probeAcross(field string, p Probe) {
	if p.Tolerance.Percentile > 0 && (!p.in(Before) || len(p.When) == 1) {
		d.wrong(field+".tolerance.baseline", "needs tries before the faults, and others; when has %v", p.When)
	}
	if p.Aborts && !p.in(During) {
		d.wrong(field+".onFailure", "abort has a meaning during the faults only; when has %v", p.When)
	}
	if most := p.maxLatency(); most > p.Timeout {
		d.wrong(field+"."+p.Kind+".latency", "%s is above the timeout, %s, after which a try is given up", most, p.Timeout)
	}
	if p.Tolerance.Window > 0 && p.Tolerance.Window < p.Interval {
		d.wrong(field+".tolerance.failures.window", "%s is below the interval, %s: there would be no try in it", p.Tolerance.Window, p.Interval)
	}
}

// in says whether the probe asks in a phase.
func (p Probe) in(phase Phase) bool {
	for _, when := range p.When {
		if when == phase {
			return true
		}
	}
	return false
}
