package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"faultd/test/cgrouptest"
)

// TestGiveMemoryBack: what a loader has written into pages that nobody may write any more stays there. In a program without cgo there is none,
// so the race detector's is the one that shows it.
func TestGiveMemoryBack(t *testing.T) {
	pages, err := readOnlyPages()
	if err != nil {
		t.Fatal(err)
	}
	clean := 0
	for _, p := range pages {
		if p.clean {
			clean++
		}
	}
	if clean == 0 {
		t.Errorf("of %d mappings nothing would be given back", len(pages))
	}
	giveMemoryBack()
	for range 4 { // a new thread needs the loader's tables
		done := make(chan bool)
		go func() { runtime.LockOSThread(); close(done) }()
		<-done
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil || !strings.Contains(string(maps), "r-xp") {
		t.Errorf("%v: %s", err, maps)
	}
}

// TestGarbageIsCollectedOnceThereIsSome: the daemon looks for garbage when the heap has grown, and not because it is large: that took a processor
// for as long as a fault lasted.
func TestGarbageIsCollectedOnceThereIsSome(t *testing.T) {
	cgrouptest.RequireRoot(t)
	l := &lab{t: t, dir: shortDir(t)}
	l.tree, l.shopTarget = cgrouptest.New(t)
	l.startDaemon()
	const rules = 16 // of one kind, as many as a target can have
	for i := range rules {
		if code, said := l.faultd("inject", "connect", "--target", "cgroup:"+l.shopTarget.Path, "--duration", "1h", "--errno", "ECONNREFUSED", "--port", fmt.Sprint(i+1)); code != 0 {
			t.Fatalf("exit code %d: %s", code, said)
		}
	}
	if code, said := l.faultd("check"); code != 0 { // which needs more of the kernel's types than any fault
		t.Fatalf("exit code %d: %s", code, said)
	}
	const (
		wanted = 8       // collections; one more may be asked for, when the daemon rests
		least  = 3 << 19 // bytes between two of them: 4 MB are usual, with a memory limit it was 0.6
	)
	allocated, collections := l.heap()
	until, now := collections+wanted, collections
	bytes := allocated
	l.until("garbage is collected some times", func() bool {
		bytes, now = l.heap()
		return now >= until
	})
	if more := now - collections - 1; bytes-allocated < more*least {
		t.Errorf("garbage was collected %v times and once more for %v bytes", more, bytes-allocated)
	}
}

// heap is how many bytes the daemon has allocated, and how often it has collected garbage.
func (l *lab) heap() (allocated, collections float64) {
	l.t.Helper()
	text := l.metrics()
	for name, value := range map[string]*float64{"go_memstats_alloc_bytes_total": &allocated, "go_gc_duration_seconds_count": &collections} {
		found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
		if found == nil {
			l.t.Fatalf("no %s in:\n%s", name, text)
		}
		var err error
		if *value, err = strconv.ParseFloat(found[1], 64); err != nil {
			l.t.Fatal(err)
		}
	}
	return allocated, collections
}
