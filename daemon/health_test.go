package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"faultd/bpf"
)

// TestHealth: a daemon whose main loop stands still says so, for whoever restarts it.
func TestHealth(t *testing.T) {
	for stood, want := range map[int64]int{0: http.StatusOK, 2 * mostHealthy.Nanoseconds(): http.StatusServiceUnavailable} {
		d := &Daemon{}
		d.looped.Store(bpf.Monotonic() - stood)
		w := httptest.NewRecorder()
		d.healthz(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		if w.Code != want {
			t.Errorf("after %d ns: %d %s, want %d", stood, w.Code, w.Body, want)
		}
	}
}
