package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// metricNames are all that the daemon may tell.
func metricNames() map[string]bool {
	ch := make(chan *prometheus.Desc, 100)
	newCollector(nil).Describe(ch)
	close(ch)
	names := map[string]bool{}
	for desc := range ch {
		names[regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(desc.String())[1]] = true
	}
	return names
}

// TestDashboard: every query of the Grafana dashboard names metrics that there are, and all of experiments are shown.
func TestDashboard(t *testing.T) {
	kernels.OnHost(t)
	text, err := os.ReadFile("../deploy/grafana/faultd.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			queries[fmt.Sprint(p.Title, i)] = target.Expr
		}
	}
	for _, v := range dashboard.Templating.List[1:] { // the first chooses the data source
		queries[v.Name] = v.Definition
	}
	for _, a := range dashboard.Annotations.List {
		queries[a.Name] = a.Expr
	}
	there, shown := metricNames(), map[string]bool{}
	for where, query := range queries {
		names := regexp.MustCompile(`\bfaultd_\w+`).FindAllString(query, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for no metric of faultd: %q", where, query)
		}
		for _, name := range names {
			if shown[name] = true; !there[name] {
				t.Errorf("%s asks for %s, which there is not", where, name)
			}
		}
	}
	for name := range there {
		if !shown[name] && (strings.HasPrefix(name, "faultd_run") || strings.HasPrefix(name, "faultd_probe")) {
			t.Errorf("%s is not shown", name)
		}
	}
}

// runMetricsOf gives what the daemon tells of experiments, as "name{labels} value".
func runMetricsOf(t *testing.T, d *Daemon) (lines []string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(onlyRuns{newRunMetrics(), d})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			lines = append(lines, fmt.Sprintf("%s %s %v", strings.TrimPrefix(family.GetName(), "faultd_"), strings.Join(labels, " "), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	return lines
}

type onlyRuns struct {
	runMetrics
	d *Daemon
}

func (o onlyRuns) Describe(ch chan<- *prometheus.Desc) { o.describe(ch) }
func (o onlyRuns) Collect(ch chan<- prometheus.Metric) { o.collect(o.d, ch) }

// TestRunMetrics: counts add up over runs, whatever was told when; the rest is of the last one.
func TestRunMetrics(t *testing.T) {
	d := &Daemon{runs: map[string]*experimentRun{}, observed: map[string]*observed{}}
	begin := func(id string) *experimentRun {
		r := &experimentRun{id: id, experiment: "shop", told: map[probePhase]*v1.ProbeResult{}}
		d.runs[id] = r
		d.observe(r, nil)
		return r
	}
	tell := func(r *experimentRun, phase string, tries, failed uint64) *observed {
		return d.observe(r, []*v1.ProbeResult{{Probe: "web", Phase: phase, Holds: failed == 0, Tries: tries, Failed: failed, P50: 0.5, P99: 1}})
	}
	first := begin("1")
	first.phase = "during"
	tell(first, "before", 2, 0)
	tell(first, "during", 5, 1)
	second := begin("2")
	tell(first, "during", 9, 3)
	tell(second, "before", 4, 0)
	delete(d.runs, "1")
	tell(first, "during", 10, 3).verdicts["refuted"]++
	want := []string{
		"probe_failures_total shop before web 0", "probe_failures_total shop during web 3",
		"probe_holds shop before web 1", "probe_holds shop during web 0",
		"probe_latency_seconds shop before web 0.5 0.5", "probe_latency_seconds shop before web 0.99 1",
		"probe_latency_seconds shop during web 0.5 0.5", "probe_latency_seconds shop during web 0.99 1",
		"probe_tries_total shop before web 6", "probe_tries_total shop during web 10",
		"runs_active shop 1", "runs_total shop refuted 1",
	}
	if lines := runMetricsOf(t, d); !slices.Equal(lines, want) {
		t.Errorf("it tells\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	second.phase = "before"
	if lines := runMetricsOf(t, d); !slices.Contains(lines, "run_phase shop before 1") {
		t.Errorf("it tells\n%s", strings.Join(lines, "\n"))
	}
	// Of too many experiments the oldest is forgotten.
	for i := range mostObserved {
		d.observe(&experimentRun{experiment: fmt.Sprint(i)}, nil)
	}
	if d.observed["shop"] != nil || len(d.observed) != mostObserved {
		t.Errorf("%d are known, and shop is %v", len(d.observed), d.observed["shop"])
	}
}
