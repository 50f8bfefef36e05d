package main

import (
	"os"
	"runtime"
	"strings"
	"testing"
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
