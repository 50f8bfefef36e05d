package daemon

import (
	"sync"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

const eventsPerReader = 256

// hub passes events on to whoever watches. A slow reader loses events and is told how many.
type hub struct {
	mu      sync.Mutex
	readers map[*reader]bool
}

type reader struct {
	events chan *v1.WatchResponse
	lost   uint64
}

func (h *hub) join() *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &reader{events: make(chan *v1.WatchResponse, eventsPerReader)}
	h.readers[r] = true
	return r
}

func (h *hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

func (h *hub) send(kind string, fault *v1.Fault, message string) {
	event := &v1.WatchResponse{Time: stamp(time.Now()), Type: kind, Fault: fault, Message: message}
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		if r.lost > 0 {
			notice := &v1.WatchResponse{Time: event.Time, Type: "lost", Lost: r.lost, Message: "this reader was too slow"}
			select {
			case r.events <- notice:
				r.lost = 0
			default:
			}
		}
		select {
		case r.events <- event:
		default:
			r.lost++
		}
	}
}

// stamp writes a time for the wire; the zero time is empty.
// clockSet is by how much the node's clock must have been set for times of before to be shown anew; less may be its steering.
const clockSet = time.Second

// onThisClock is a moment as the node's clock has it that was set meanwhile: so a deadline, which is kept by a clock that nobody sets, is as
// far away as it is shown. It stays in its words while the clock goes its way.
func onThisClock(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	set := now.Round(0).Sub(t.Round(0)) - now.Sub(t) // Round takes the clock away that nobody sets
	if set.Abs() < clockSet {
		return t
	}
	return t.Round(0).Add(set)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
