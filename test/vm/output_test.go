package main

import (
	"slices"
	"strings"
	"testing"

	"faultd/test/vm/guest"
)

func TestSplitter(t *testing.T) {
	const nonce = "N0NCE"
	in := "out\x1e" + guest.Frame(nonce, guest.FrameBoot, 1) + "more" +
		guest.Frame("OTHER", guest.FrameExit, 0, 0) + // a program's forgery
		"no line feed" + guest.Frame(nonce, guest.FrameExit, 0, 3) + guest.Frame(nonce, guest.FrameError, "a\nb") +
		"last\x1eN0"
	wantOut := "out\x1emore" + guest.Frame("OTHER", guest.FrameExit, 0, 0) + "no line feedlast\x1eN0"
	wantFrames := []string{"boot 1", "exit 0 3", "error a b"}
	for size := 1; size <= len(in); size++ {
		var out strings.Builder
		var frames []string
		s := &splitter{prefix: []byte(guest.FramePrefix(nonce)), out: &out, frame: func(f string) { frames = append(frames, f) }}
		for chunk := range slices.Chunk([]byte(in), size) {
			if n, err := s.Write(chunk); err != nil || n != len(chunk) {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != wantOut || !slices.Equal(frames, wantFrames) {
			t.Fatalf("chunks of %d: out %q, frames %q", size, out.String(), frames)
		}
	}
}

func TestSplitterHoldsNothingBack(t *testing.T) {
	var out strings.Builder
	s := &splitter{prefix: []byte(guest.FramePrefix("N")), out: &out}
	s.Write([]byte("no line end"))
	if out.String() != "no line end" {
		t.Errorf("out is %q while the program waits", out.String())
	}
}

func TestMarkerWriter(t *testing.T) {
	in := "xMARK\nMARKx\nMARK\r\nMARK\n"
	for size := 1; size <= len(in); size++ {
		var out strings.Builder
		found := 0
		m := &markerWriter{out: &out, marker: []byte("MARK"), found: func() { found++ }}
		for chunk := range slices.Chunk([]byte(in), size) {
			m.Write(chunk)
		}
		if found != 1 || out.String() != in {
			t.Errorf("chunks of %d: found %d times, passed on %q", size, found, out.String())
		}
	}
}

func TestOutcome(t *testing.T) {
	var o outcome
	for _, f := range []string{"boot 1", "exit 0 1", "boot 2", "exit 0 0", "exit 1 7", "exit 2 9", "done"} {
		if err := o.frame(f); err != nil {
			t.Fatal(err)
		}
	}
	if o.boot != 2 || !o.done || o.firstFailure() != 7 {
		t.Errorf("got %+v, first failure %d, want boot 2, done, 7", o, o.firstFailure())
	}
	for _, f := range []string{"", "boot x", "exit 5 0", "exit 3", "what 1"} {
		if err := o.frame(f); err == nil {
			t.Errorf("frame %q: no error", f)
		}
	}
}
