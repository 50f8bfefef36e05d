package faults

import (
	"strings"
	"testing"

	"faultd/bpf"
)

func TestArrivalsAreNoted(t *testing.T) {
	if notes := arrivalNotes(bpf.Arrivals{}); len(notes) > 0 {
		t.Errorf("nothing arrived, noted %q", notes)
	}
	notes := arrivalNotes(bpf.Arrivals{Programs: 2, Rings: 3, Spares32: "the calls of such programs are not hurt"})
	if len(notes) != 2 || !strings.Contains(notes[0], "32 bits were started in the target, 2 times") || !strings.Contains(notes[1], "io_uring were made in the target, 3 times") {
		t.Errorf("noted %q", notes)
	}
	if notes := arrivalNotes(bpf.Arrivals{Programs: 2}); len(notes) > 0 {
		t.Errorf("all that arrived is hurt, noted %q", notes)
	}
}
