package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"faultd/daemon"
	"faultd/experiment"
)

// shopObjective is a Prometheus that asks the shop itself: 1 while customers are refused. Once it is forgiven it is always 0, as when the
// shop has learnt to do without Redis.
type shopObjective struct {
	*httptest.Server
	forgiven atomic.Bool
	missed   atomic.Int64
}

func (l *lab) objective() *shopObjective {
	o := &shopObjective{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := 0
		if response, err := http.Get(l.shop); err != nil || response.StatusCode != http.StatusOK {
			value = 1
			o.missed.Add(1)
		} else {
			response.Body.Close()
		}
		if o.forgiven.Load() {
			value = 0
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"%d"]}}`, value)
	}))
	l.t.Cleanup(o.Close)
	return o
}

// continuousRun is one that goes on, for as long, with bursts of 300 ms.
type continuousRun struct {
	*exec.Cmd
	report string
	ended  chan struct{}

	mu   sync.Mutex
	said bytes.Buffer
}

// Write takes what the run says.
func (r *continuousRun) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(text)
}

func (r *continuousRun) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

func (l *lab) startContinuous(o *shopObjective, length string) *continuousRun {
	l.t.Helper()
	schedule := fmt.Sprintf(`schedule: {continuous: {on: 300ms, off: 150ms, mostOff: 600ms, for: %s}}
  stop: {errorBudget: {url: %q, budget: 2s, interval: 50ms, objectives: [{name: customers, query: refused, compare: "< 1"}]}}`, length, o.URL)
	r := &continuousRun{report: filepath.Join(l.t.TempDir(), "report"), ended: make(chan struct{})}
	r.Cmd = exec.Command("faultd", "--socket", l.socket(), "run", l.write("duration: 500ms", schedule, "SHOP/", "SHOP/cached"), "--report", r.report)
	r.Stdout, r.Stderr = r, r
	if err := r.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = r.Process.Kill() }) // if the test failed
	go func() {
		_ = r.Wait() // its error is the exit code, or the signal
		close(r.ended)
	}()
	return r
}

// says waits until it has said something. A run that ends before is broken.
func (r *continuousRun) says(l *lab, words string) {
	l.t.Helper()
	l.until("the run says "+words, func() bool {
		select {
		case <-r.ended:
			if !strings.Contains(r.text(), words) {
				l.t.Fatalf("it ended, and did not say %s:\n%s", words, r.text())
			}
		default:
		}
		return strings.Contains(r.text(), words)
	})
}

// continuousExperiment is one in seconds that else takes days: while customers are refused it backs off, and when they are not it goes on
// faster again; it ends by itself, when its time is over or its budget is. Killed, or with its daemon, it leaves nothing.
func continuousExperiment(t *testing.T, l *lab) {
	o := l.objective()
	r := l.startContinuous(o, "6s")
	r.says(l, "backs off: the next burst comes after 300ms; ")
	o.forgiven.Store(true)
	r.says(l, "goes on faster: the next burst comes after ")
	<-r.ended
	j := readJournal(t, r.report)
	if code := r.ProcessState.ExitCode(); code != exitDone || j.Faultd.Verdict != experiment.Confirmed || o.missed.Load() == 0 {
		t.Errorf("exit code %d, %d times customers were refused:\n%s", code, o.missed.Load(), r.text())
	}
	var hurt int
	for _, burst := range j.Run {
		if burst.Output.Injected > 0 {
			hurt++
		}
	}
	if hurt < 4 || hurt < len(j.Run)-1 {
		t.Errorf("of %d bursts %d did harm:\n%s", len(j.Run), hurt, r.text())
	}
	l.idle()

	r = l.startContinuous(l.objective(), "1h")
	r.says(l, "backs off: ")
	<-r.ended
	if code := r.ProcessState.ExitCode(); code != exitAborted || !strings.Contains(r.text(), "the error budget of 2s is spent; objective customers: ") {
		t.Errorf("exit code %d:\n%s", code, r.text())
	}
	l.idle()
	continuousKilled(t, l)
}

// continuousKilled kills the command, and then the daemon, in a burst.
func continuousKilled(t *testing.T, l *lab) {
	begin := func() *continuousRun {
		o := l.objective()
		o.forgiven.Store(true)
		r := l.startContinuous(o, "1h")
		r.says(l, "redis-gone off")
		l.until("another burst is on", func() bool { return l.newest().GetState() == "active" })
		return r
	}
	r := begin()
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	l.until("the burst is over", func() bool { return l.newest().GetState() == "ended" })
	if j := readJournal(t, r.report); j.Faultd.Verdict != experiment.Interrupted {
		t.Errorf("the journal of a run that was killed has %s", j.Faultd.Verdict)
	}
	l.idle()

	r = begin()
	if err := l.daemon.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = l.daemon.Wait() // its error is the signal
	<-r.ended
	if code := r.ProcessState.ExitCode(); code != exitAborted && code != exitFailed && code != exitNoDaemon {
		t.Errorf("exit code %d:\n%s", code, r.text())
	}
	l.until("nothing is left of the daemon", func() bool {
		left, err := daemon.Residue(l.pins(), filepath.Join(l.dir, "state"), false)
		return err == nil && len(left) == 0
	})
	l.startDaemon()
	l.idle()
}
