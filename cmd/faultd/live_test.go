package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// openTerminal makes a pseudo-terminal: what is written to the second is read from the first.
func openTerminal(t *testing.T) (reader, terminal *os.File) {
	t.Helper()
	reader, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there is no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { reader.Close() })
	if err := unix.IoctlSetPointerInt(int(reader.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(reader.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 70}); err != nil {
		t.Fatal(err)
	}
	return reader, terminal
}

// shownOn carries out a small experiment, and gives what stands on a terminal or is written to something else.
func shownOn(t *testing.T, out io.Writer) int {
	t.Helper()
	document := strings.NewReplacer("cgroup: TARGET", "cgroup: /a", "http: {url: SHOP/}", `command: {argv: ["true"]}`).Replace(labDocument)
	path := filepath.Join(t.TempDir(), "experiment.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(document, "PORT", "1", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("FAULTD_HISTORY", filepath.Join(t.TempDir(), "history"))
	return runWith(t.Context(), testNode(), []string{"faultd", "--socket", serveFake(t, shortDir(t), &fake{}), "run", path}, nil, out, io.Discard)
}

// TestLive: in a terminal the run is shown as it stands, and taken away in the end.
func TestLive(t *testing.T) {
	reader, terminal := openTerminal(t)
	shown := make(chan string)
	go func() {
		text, err := io.ReadAll(reader)
		if !errors.Is(err, syscall.EIO) { // so a terminal ends
			t.Errorf("the terminal: %v", err)
		}
		shown <- string(text)
	}()
	code := shownOn(t, terminal)
	terminal.Close()
	text := <-shown
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{bold + "shop-without-redis" + usual + "  during", "fault redis-gone", red + "on " + usual, "3 injected, 5 matched, 1 spared", "probe shop ", green + "holds" + usual, "█", "Ctrl-C ends"} {
		if !strings.Contains(text, want) {
			t.Errorf("it did not show %q", want)
		}
	}
	last := text[strings.LastIndex(text, eraseBelow):]
	if last != eraseBelow || !strings.Contains(text, "verdict: confirmed\r\n") {
		t.Errorf("in the end there stands %q", last)
	}
	if t.Failed() {
		t.Logf("%q", text)
	}
}

// TestPlainLines: elsewhere there are lines, and nothing else.
func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	if code := shownOn(t, &out); code != exitDone || strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), " verdict: confirmed\n") {
		t.Errorf("exit code %d, and it said %q", code, out.String())
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		line    string
		columns int
		want    string
	}{
		{"abc", 5, "abc"}, {"abc", 2, "ab"}, {red + "abc" + usual, 2, red + "ab" + usual}, {"▁×▁", 2, "▁×"}, {"", 3, ""}, {"abc", 0, ""},
	} {
		if got := cut(test.line, test.columns); got != test.want {
			t.Errorf("cut(%q, %d) is %q, want %q", test.line, test.columns, got, test.want)
		}
	}
}

func TestFrame(t *testing.T) {
	tries := []experiment.Sample{{Took: time.Millisecond}, {Took: 8 * time.Millisecond}, {Failure: "no"}, {Took: 4 * time.Millisecond}}
	frame := frameOf(experiment.Status{
		Name: "shop\x1b[31m", Since: 65 * time.Second, Left: 5 * time.Second,
		Faults: []experiment.FaultStatus{{Label: "one at /web-1", On: true, Counters: &v1.Counters{Injected: 4}}, {Label: "two", Counters: &v1.Counters{}}},
		Probes: []experiment.ProbeStatus{{Name: "web", Why: "slow", Counts: experiment.Summary{Count: 4, Failed: 1, P50: 0.004}, Last: tries}},
	}, 100)
	want := []string{
		bold + "shop?[31m" + usual + "  starting  1:05, 0:05 left",
		"  fault one at /web-1            " + red + "on " + usual + "  4 injected, 0 matched, 0 spared",
		"  fault two                      " + quiet + "off" + usual + "  0 injected, 0 matched, 0 spared",
		"  probe web                      " + red + "fails" + usual + "  ▁█" + red + "×" + usual + "▄  p50 4ms, 1 of 4 failed",
	}
	for i, line := range want {
		if frame[i] != line {
			t.Errorf("line %d is %q, want %q", i, frame[i], line)
		}
	}
}

// TestFrameFits: a terminal of 80 columns shows how many tries failed, and of the tries the last ones that there is room for.
func TestFrameFits(t *testing.T) {
	tries := make([]experiment.Sample, 40)
	tries[39].Failure = "no"
	for columns, drawn := range map[int]int{80: 11, 90: 21, 200: 40} {
		frame := frameOf(experiment.Status{Probes: []experiment.ProbeStatus{{Name: "web", Counts: experiment.Summary{Count: 1000, Failed: 11, P50: 0.0123}, Last: tries}}}, columns)
		line := frame[1]
		if got := strings.Count(line, "▁") + strings.Count(line, "×"); got != drawn || !strings.Contains(line, red+"×"+usual+"  p50 12ms, 11 of 1000 failed") {
			t.Errorf("of %d columns: %d tries in %q", columns, got, line)
		}
		if shown := cut(line, columns); !strings.HasSuffix(shown, "failed") {
			t.Errorf("of %d columns it shows %q", columns, shown)
		}
	}
}

func TestBriefly(t *testing.T) {
	long := strings.Repeat("é", 101)
	for reason, want := range map[string]string{"": "", "lease lapsed": "lease lapsed", long[2:]: long[2:], long: long[2:] + "..."} {
		if got := briefly(reason); got != want {
			t.Errorf("%q becomes %q", reason, got)
		}
	}
}
