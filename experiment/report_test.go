package experiment

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeReport carries out an experiment that is refuted and gives what its report has, by file.
func writeReport(t *testing.T, prepare func(*lab), replace ...string) (*Result, map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "found")
	var result *Result
	inLab(t, func(l *lab) {
		if prepare != nil {
			prepare(l)
		}
		if _, err := PrepareReport(dir, l.plan, Environment{}); err != nil {
			t.Fatal(err)
		}
	}, func(_ *lab, r *Result) { result = r }, replace...)
	result.Environment = Environment{Version: "v1", Host: "node-1", Kernel: "6.12.0", Platform: "linux/amd64", CPUs: 2, Replay: "faultd run shop.yaml --seed 7"}
	report := &Report{dir}
	if err := report.Write(result); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return result, files
}

// hostile is what a document may say, and no page may obey.
const hostile = `"<script>alert(1)</script> | <b> & \u0001"`

func TestReport(t *testing.T) {
	_, files := writeReport(t, func(l *lab) { l.answers["web"] = failsFrom(8*time.Second, 9*time.Second) },
		"hypothesis: the shop sells", "hypothesis: "+hostile)
	if len(files) != 4 {
		t.Errorf("the report has %d files", len(files))
	}
	var j Journal
	if err := json.Unmarshal([]byte(files["journal.json"]), &j); err != nil {
		t.Fatal(err)
	}
	if j.Status != "completed" || !j.Deviated || j.Faultd.Verdict != Refuted || len(j.Run) != 2 || !j.SteadyStates["before"].Met || j.SteadyStates["during"].Met || !j.SteadyStates["after"].Met {
		t.Errorf("the journal is %+v", j)
	}
	during := j.SteadyStates["during"].Probes[0]
	if during.Failed != 1 || during.Count < 10 || during.Tries[0].Status != "succeeded" || during.Why != "out of stock" {
		t.Errorf("during the faults it has %+v", during)
	}
	var suite junitSuite
	if err := xml.Unmarshal([]byte(files["junit.xml"]), &suite); err != nil {
		t.Fatal(err)
	}
	// The verdict, two faults, and a probe in three phases; the verdict and the probe during the faults fail.
	if suite.Tests != 6 || suite.Failures != 2 || suite.Errors != 0 || suite.Skipped != 0 || len(suite.Cases) != 6 {
		t.Errorf("the suite is %+v", suite)
	}
	page := files["report.html"]
	for _, want := range []string{
		`<span class="verdict refuted">refuted</span>`, "web during the faults: out of stock", "&lt;script&gt;", `class="harm"`, `class="mark"`,
		`class="line line0"`, "faultd run shop.yaml --seed 7", "cgroup:/shop", "6.12.0", "kind: Experiment",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, foreign := range []string{"<script", "src=", "<link", "@import", "ZgotmplZ", "<no value>", "NaN"} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page has %q", foreign)
		}
	}
	text := files["report.md"]
	for _, want := range []string{"# shop: refuted", "| web | during |", "no: out of stock", "| one | connect | cgroup:/shop | 10s |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the Markdown has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "<script") {
		t.Error("the Markdown has a script")
	}
}

// TestReportsOfAllVerdicts: each can be told.
func TestReportsOfAllVerdicts(t *testing.T) {
	for want, prepare := range map[Verdict]func(*lab){
		Confirmed: nil,
		Refuted:   func(l *lab) { l.answers["web"] = failsFrom(8*time.Second, 9*time.Second) },
		Aborted:   func(l *lab) { l.answers["web"] = failsFrom(0, time.Hour) },
		Inert:     func(l *lab) { l.node.injected = 0 },
	} {
		r, files := writeReport(t, prepare)
		if r.Verdict != want {
			t.Errorf("the verdict is %s, want %s", r.Verdict, want)
		}
		var suite junitSuite
		if err := xml.Unmarshal([]byte(files["junit.xml"]), &suite); err != nil {
			t.Fatal(err)
		}
		if good := suite.Failures+suite.Errors == 0; good != (want == Confirmed) {
			t.Errorf("%s has %d failures and %d errors", want, suite.Failures, suite.Errors)
		}
		if !strings.Contains(files["report.html"], meanings[want]) || !strings.Contains(files["report.md"], meanings[want]) {
			t.Errorf("the pages do not say what %s means", want)
		}
	}
	plan := mustRead(t, labDocument)
	report, err := PrepareReport(t.TempDir(), plan, Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Write(Refused(plan, Environment{}, os.ErrPermission)); err != nil {
		t.Errorf("a run that was not begun: %v", err)
	}
}

// TestReportThatCannotBeWritten is found before the run, and does not keep the rest from being written after it.
func TestReportThatCannotBeWritten(t *testing.T) {
	plan := mustRead(t, labDocument)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PrepareReport(file, plan, Environment{}); err == nil || !strings.Contains(err.Error(), "make the directory of the report: ") {
		t.Errorf("a file as directory: %v", err)
	}
	dir := t.TempDir()
	report, err := PrepareReport(dir, plan, Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "junit.xml")), os.Remove(filepath.Join(dir, "report.html")), os.Mkdir(filepath.Join(dir, "junit.xml"), 0o700)); err != nil {
		t.Fatalf("the report of a run that was killed: %v", err)
	}
	if err := report.Write(Refused(plan, Environment{}, os.ErrPermission)); err == nil || !strings.Contains(err.Error(), "junit.xml") {
		t.Errorf("a directory where a file should be: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err != nil {
		t.Error(err)
	}
}

func TestNiceAbove(t *testing.T) {
	for value, want := range map[float64]float64{0: 1, 0.0007: 0.001, 1: 1, 1.1: 2, 3: 5, 6: 10, 999: 1000} {
		if got := niceAbove(value); got < want*0.999 || got > want*1.001 {
			t.Errorf("above %v it is %v, want %v", value, got, want)
		}
	}
}
