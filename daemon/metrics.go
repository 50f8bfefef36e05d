package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector reads the kernel's counters when it is scraped.
type collector struct {
	d        *Daemon
	counters []counter
	armed    *prometheus.Desc
	active   *prometheus.Desc
	lapses   *prometheus.Desc
	works    *prometheus.Desc
	runs     runMetrics
}

type counter struct {
	desc *prometheus.Desc
	read func(*fault) uint64
}

func newCollector(d *Daemon) *collector {
	perFault := func(name, help string, read func(*fault) uint64) counter {
		return counter{prometheus.NewDesc("faultd_fault_"+name+"_total", help, []string{"fault", "kind", "target"}, nil), read}
	}
	return &collector{
		d: d,
		counters: []counter{
			perFault("evaluated", "Calls or packets of the target that the fault was looked at for.", func(f *fault) uint64 { return f.handle.Counters().Evaluated }),
			perFault("matched", "Calls or packets that fitted its filters.", func(f *fault) uint64 { return f.handle.Counters().Matched }),
			perFault("injected", "Calls or packets that were hurt.", func(f *fault) uint64 { return f.handle.Counters().Injected }),
			perFault("not_applied", "Calls or packets that were due and could not be hurt.", func(f *fault) uint64 { return f.handle.Counters().NotApplied }),
			perFault("spared", "Calls or packets that the dice spared.", func(f *fault) uint64 { return f.handle.Counters().Spared }),
			perFault("cut_short", "Delays that ended early; they count as injected too.", func(f *fault) uint64 { return f.handle.Counters().CutShort }),
			perFault("missed", "Runs of the hook that the kernel skipped, of any process.", func(f *fault) uint64 { return f.handle.Counters().Missed }),
			perFault("unknown", "Calls that a filter could not judge; they are not matched.", func(f *fault) uint64 { return f.handle.Counters().Unknown }),
		},
		armed:  prometheus.NewDesc("faultd_armed", "1 if faults may start, 0 after a kill.", nil, nil),
		active: prometheus.NewDesc("faultd_faults_active", "Faults that have not ended.", nil, nil),
		lapses: prometheus.NewDesc("faultd_lease_lapses_total", "Times the daemon lost its lease.", nil, nil),
		works: prometheus.NewDesc("faultd_capability", "1 if this node can do it, 0 if not, as the last check found it; absent before the first one, and where it was not tried.",
			[]string{"kind", "covers", "mechanism"}, nil),
		runs: newRunMetrics(),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, counter := range c.counters {
		ch <- counter.desc
	}
	ch <- c.armed
	ch <- c.active
	ch <- c.lapses
	ch <- c.works
	c.runs.describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for _, f := range c.d.ordered() {
		if f.state == stateEnded {
			continue
		}
		for _, counter := range c.counters {
			ch <- prometheus.MustNewConstMetric(counter.desc, prometheus.CounterValue, float64(counter.read(f)), f.id, f.kind, f.where())
		}
	}
	for _, can := range c.d.capabilities {
		if can.GetStatus() == "unknown" {
			continue
		}
		ch <- prometheus.MustNewConstMetric(c.works, prometheus.GaugeValue, gauge(can.GetStatus() == "works"), can.GetKind(), can.GetCovers(), can.GetMechanism())
	}
	ch <- prometheus.MustNewConstMetric(c.armed, prometheus.GaugeValue, gauge(c.d.env.Kernel.Switch().Generation() != 0))
	ch <- prometheus.MustNewConstMetric(c.active, prometheus.GaugeValue, float64(c.d.running()))
	ch <- prometheus.MustNewConstMetric(c.lapses, prometheus.CounterValue, float64(c.d.lapses))
	c.runs.collect(c.d, ch)
}

func gauge(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func (d *Daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
