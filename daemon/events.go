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
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
