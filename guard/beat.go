package guard

import (
	"os"
	"sync/atomic"
	"time"

	"faultd/bpf"
)

// The beat: a guard counts at least every beatInterval; it is dead to others when missedBeats of their looks in a row
// found the same number. Looks are counted, not time, so that whoever was stopped itself does not blame the guard.
const (
	beatInterval = 200 * time.Millisecond
	lookInterval = 250 * time.Millisecond
	missedBeats  = 4
)

// beat is a counter in memory that guard, holder and daemon share.
type beat struct{ bpf.Shared }

// newBeat makes the memory; the caller closes the file once everybody has it.
func newBeat() (beat, *os.File, error) {
	s, f, err := bpf.NewShared("guard's beat")
	return beat{s}, f, err
}

func openBeat(fd int) (beat, error) {
	s, err := bpf.OpenShared(fd, "guard's beat")
	return beat{s}, err
}

func (b beat) counter() *atomic.Int64 { return b.Word(0) }

// watch judges a beat by repeated looks.
type watch struct {
	beat   beat
	last   int64
	misses int
}

// look says whether the guard still beats. Call it every lookInterval.
func (w *watch) look() bool {
	now := w.beat.counter().Load()
	if now != w.last {
		w.last, w.misses = now, 0
		return true
	}
	w.misses++
	return w.misses < missedBeats
}
