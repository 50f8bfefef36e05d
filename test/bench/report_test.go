package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := &report{Machine: machine{Kernel: "6.18", CPU: "fast", CPUs: 2}, section: "armed"}
	r.addCost("hooked", pairs{[]float64{200}, []float64{430}}, 250)
	r.addCost("dear", pairs{[]float64{200}, []float64{460}}, 250)
	r.addCost("no goal", pairs{[]float64{200}, []float64{2600}}, 0)
	r.addRate("GET", pairs{[]float64{90e3}, []float64{81e3}}, 0.97)
	r.addLatencies("kill", []float64{3e3, 1e3, 2e6}, 1e6)
	r.missing("delay", "this kernel cannot")
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{
		"faultd bench: Linux 6.18, 2 CPUs (fast)",
		"armed    hooked   200 ns    430 ns ",
		"+230 ns, x2.15  <= +250 ns   ok",
		"+2400 ns, x13.00  -            -",
		"x0.900            >= x0.97     missed",
		"median 3 us, worst of 3 2 ms",
		"not measured: this kernel cannot",
		"missed: 3",
		"  armed: dear: +260 ns, x2.30, asked <= +250 ns",
		"  armed: kill: median 3 us, worst of 3 2 ms, asked worst <= 1ms",
	} {
		if !strings.Contains(squeeze(out.String()), squeeze(want)) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// squeeze makes runs of blanks one: columns are as wide as what is in them.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestEmulatedMachinesMissNoTimes(t *testing.T) {
	r := &report{Machine: machine{Emulated: true}}
	r.addCost("hooked", pairs{[]float64{200}, []float64{4300}}, 250)
	r.addRate("GET", pairs{[]float64{90e3}, []float64{81e3}}, 0.97)
	if got := r.Rows[0].Verdict; got != verdictEmulated {
		t.Errorf("a time: got %q, want %q", got, verdictEmulated)
	}
	if got := r.Rows[1].Verdict; got != verdictMissed {
		t.Errorf("a ratio: got %q, want %q", got, verdictMissed)
	}
}

func TestRawNumbersAreKept(t *testing.T) {
	r := &report{}
	r.addCost("hooked", pairs{[]float64{200, 201}, []float64{430, 431}}, 250)
	path := filepath.Join(t.TempDir(), "new", "bench.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		Rows []struct {
			What string
			Raw  pairs
		}
	}
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept.Rows) != 1 || kept.Rows[0].What != "hooked" || kept.Rows[0].Raw.With[1] != 431 {
		t.Errorf("got %+v", kept)
	}
}

func TestUnits(t *testing.T) {
	for ns, want := range map[float64]string{217.4: "217 ns", 4260: "4.26 us", 20.3e6: "20.3 ms", 1.5e9: "1.5 s"} {
		if got := nanoseconds(ns); got != want {
			t.Errorf("%v ns: got %q, want %q", ns, got, want)
		}
	}
}
