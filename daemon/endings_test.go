package daemon_test

import (
	"strings"
	"syscall"

	v1 "faultd/api/faultd/v1alpha1"
)

// ending is how a fault is ended.
type ending struct {
	name string
	end  func(*v1.Fault)
}

// endings are those after which daemon, guard or journal must undo what outlives a process. asBefore waits until nothing is left.
func (n *node) endings(asBefore func()) []ending {
	return []ending{
		{"killed", func(*v1.Fault) { n.dies(asBefore) }},
		{"killed with its guard", func(*v1.Fault) {
			n.signal(syscall.SIGSTOP) // so that it cannot replace a killed guard
			n.signalGuard(syscall.SIGKILL)
			n.end(syscall.SIGKILL)
			n.start()
		}},
		{"stopped", func(f *v1.Fault) {
			n.signal(syscall.SIGSTOP)
			asBefore()
			n.signal(syscall.SIGCONT)
			n.ended(f)
		}},
		{"expired", func(f *v1.Fault) { n.update(f, "1s") }},
	}
}

// dies kills the daemon; the next one comes once all is as it was.
func (n *node) dies(asBefore func()) {
	n.t.Helper()
	n.end(syscall.SIGKILL)
	asBefore()
	n.start()
}

// ended waits until a fault has ended.
func (n *node) ended(f *v1.Fault) {
	n.t.Helper()
	n.until("the fault has ended", func() bool { return n.get(f.GetId()).GetState() == "ended" })
}

// gaveUp waits until a fault has ended as somebody has changed what it works by, and said so.
func (n *node) gaveUp(f *v1.Fault, why string) {
	n.t.Helper()
	n.ended(f)
	got := n.get(f.GetId())
	if notes := strings.Join(got.GetNotes(), "; "); got.GetReason() != "given up" || got.GetVerdict() != "partial" || !strings.Contains(notes, why) {
		n.t.Errorf("it ended as %v, %v, with notes %q, want %q", got.GetReason(), got.GetVerdict(), notes, why)
	}
}
