package guard

import "testing"

func TestEndingSignals(t *testing.T) {
	status := func(pending, shared, blocked, ignored, caught string) []byte {
		return []byte("Name:\tx\nSigPnd:\t" + pending + "\nShdPnd:\t" + shared + "\nSigBlk:\t" + blocked + "\nSigIgn:\t" + ignored + "\nSigCgt:\t" + caught + "\n")
	}
	for name, c := range map[string]struct {
		status []byte
		wake   bool
	}{
		"none":             {status("0", "0", "0", "0", "0"), false},
		"handled":          {status("400000", "0", "0", "0", "400000"), false},
		"killed":           {status("0000000000000100", "0", "0", "0", "0"), true},
		"killed, the mask": {status("100", "0", "ffffffffffffffff", "0", "0"), true},
		"default SIGTERM":  {status("0", "4000", "0", "0", "0"), true},
		"blocked SIGTERM":  {status("0", "4000", "4000", "0", "0"), false},
		"ignored":          {status("0", "1", "0", "1", "0"), false},
	} {
		if got := endingSignals(c.status) != 0; got != c.wake {
			t.Errorf("%s: wake %v, want %v", name, got, c.wake)
		}
	}
	if !mustWake(1 << 30) {
		t.Error("a thread that is not there was left asleep")
	}
}
