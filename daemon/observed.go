package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "faultd/api/faultd/v1alpha1"
)

// observed is what runs of one experiment told, for the metrics: counts over all runs since the daemon began, the rest of the last one.
type observed struct {
	at       time.Time
	verdicts map[string]uint64
	probes   map[probePhase]*probeCounts
}

// probePhase is a probe in one phase.
type probePhase struct{ probe, phase string }

type probeCounts struct {
	tries, failed uint64
	last          *v1.ProbeResult
}

// mostObserved is how many experiments the metrics tell of; of more the one that was told of longest ago is forgotten.
const mostObserved = 200

// observe takes what a run told. What it told before is part of it. Call with d.mu held.
func (d *Daemon) observe(r *experimentRun, results []*v1.ProbeResult) *observed {
	o := d.observed[r.experiment]
	if o == nil {
		d.forgetObserved()
		o = &observed{verdicts: map[string]uint64{}, probes: map[probePhase]*probeCounts{}}
		d.observed[r.experiment] = o
	}
	o.at = time.Now()
	for _, result := range results {
		key := probePhase{result.GetProbe(), result.GetPhase()}
		if o.probes[key] == nil {
			o.probes[key] = &probeCounts{}
		}
		c, before := o.probes[key], r.told[key]
		// A count that became less is no more than it was.
		c.tries += result.GetTries() - min(before.GetTries(), result.GetTries())
		c.failed += result.GetFailed() - min(before.GetFailed(), result.GetFailed())
		c.last, r.told[key] = result, result
	}
	return o
}

func (d *Daemon) forgetObserved() {
	if len(d.observed) < mostObserved {
		return
	}
	oldest, at := "", time.Now()
	for name, o := range d.observed {
		if !o.at.After(at) {
			oldest, at = name, o.at
		}
	}
	delete(d.observed, oldest)
}

// runMetrics are the metrics of experiments.
type runMetrics struct {
	active, phase, runs, tries, failures, holds, latency *prometheus.Desc
}

func newRunMetrics() runMetrics {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("faultd_"+name, help, append([]string{"experiment"}, labels...), nil)
	}
	return runMetrics{
		active:   of("runs_active", "Runs of the experiment that are under way."),
		phase:    of("run_phase", "Runs of the experiment that are in the phase.", "phase"),
		runs:     of("runs_total", "Runs of the experiment that ended, by what they came to.", "verdict"),
		tries:    of("probe_tries_total", "Tries of a probe.", "probe", "phase"),
		failures: of("probe_failures_total", "Tries of a probe that failed.", "probe", "phase"),
		holds:    of("probe_holds", "1 if the probe held in the phase, 0 if not, in the run that was told of last.", "probe", "phase"),
		latency:  of("probe_latency_seconds", "Latency of the good tries of the phase, in the run that was told of last.", "probe", "phase", "quantile"),
	}
}

func (m runMetrics) describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{m.active, m.phase, m.runs, m.tries, m.failures, m.holds, m.latency} {
		ch <- desc
	}
}

// collect tells of all experiments. Call with d.mu held.
func (m runMetrics) collect(d *Daemon, ch chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	active, phases := map[string]int{}, map[[2]string]int{}
	for _, r := range d.runs {
		active[r.experiment]++
		if r.phase != "" {
			phases[[2]string{r.experiment, r.phase}]++
		}
	}
	for phase, n := range phases {
		send(m.phase, prometheus.GaugeValue, float64(n), phase[0], phase[1])
	}
	for experiment, o := range d.observed {
		send(m.active, prometheus.GaugeValue, float64(active[experiment]), experiment)
		for verdict, n := range o.verdicts {
			send(m.runs, prometheus.CounterValue, float64(n), experiment, verdict)
		}
		for key, c := range o.probes {
			send(m.tries, prometheus.CounterValue, float64(c.tries), experiment, key.probe, key.phase)
			send(m.failures, prometheus.CounterValue, float64(c.failed), experiment, key.probe, key.phase)
			send(m.holds, prometheus.GaugeValue, gauge(c.last.GetHolds()), experiment, key.probe, key.phase)
			send(m.latency, prometheus.GaugeValue, c.last.GetP50(), experiment, key.probe, key.phase, "0.5")
			send(m.latency, prometheus.GaugeValue, c.last.GetP99(), experiment, key.probe, key.phase, "0.99")
		}
	}
}
