package daemon_test

import (
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// harm is one fault of each kind on a target. They do not meet: connect hurts one TCP port, packet one UDP port, syscall
// a call that the others do not make.
type harm struct {
	n        *node
	on       cgroup.Target
	resident *worker
	server   string
	udp      *receiver

	connect, packet, syscall *v1.Fault
}

// strokes is how often hurts and spares try each kind, per thread.
const strokes = 3

// injectAll starts one fault of each kind.
func (n *node) injectAll(t cgroup.Target) *harm {
	n.t.Helper()
	// The network namespace is found through a process of the target.
	h := &harm{n: n, on: t, resident: n.worker(t), server: tcpServer(n.t, "127.0.0.1:0"), udp: receive(n.t, "127.0.0.1:0")}
	h.start()
	return h
}

// start starts the three, for the first time or again.
func (h *harm) start() {
	h.n.t.Helper()
	t := h.on
	refused := refuse(t)
	refused.GetConnect().Ports = []string{port(h.server)}
	h.connect = h.n.inject(refused)
	h.packet = h.n.inject(lose(t, &v1.Packet{Loss: 100, Ports: []string{port(h.udp.address)}}))
	h.syscall = h.n.briefDelay(t, hookedCall)
}

func (h *harm) faults() []*v1.Fault { return []*v1.Fault{h.connect, h.packet, h.syscall} }

// injected are the counters of the three.
func (h *harm) injected() (sum [3]uint64) {
	for i, f := range h.faults() {
		sum[i] = h.n.settled(f.GetId()).GetInjected()
	}
	return sum
}

// each has threads of the worker, or with "child" of a new child of it, do strokes of each kind.
func (h *harm) each(w *worker, who string, threads int) (dialled string) {
	h.n.t.Helper()
	dialled = w.do("%s dial tcp4 %s 30s %d %d", who, h.server, strokes, threads)
	// The sender of a lost packet is not told.
	w.wants(fmt.Sprintf("map[ok:%d]", strokes*threads), "%s send %s %d %d", who, h.udp.address, strokes, threads)
	w.wants(fmt.Sprintf("map[ok:%d]", strokes*threads), "%s call %s %d %d", who, hookedCall, strokes, threads)
	return dialled
}

// hurts checks that the worker is hurt by all three, every time.
func (h *harm) hurts(w *worker, who string, threads int) {
	h.n.t.Helper()
	before, arrived := h.injected(), h.udp.count()
	dialled := h.each(w, who, threads)
	if want := fmt.Sprintf("map[ECONNREFUSED:%d]", strokes*threads); dialled != want {
		h.n.t.Errorf("connecting it saw %s, want %s", dialled, want)
	}
	after := h.injected()
	for i, f := range h.faults() {
		// The kernel may miss a call of a thread that was preempted in our program, and counts that.
		missed := h.n.get(f.GetId()).GetCounters().GetMissed()
		if got := after[i] - before[i]; got > uint64(strokes*threads) || got+missed < uint64(strokes*threads) {
			h.n.t.Errorf("%s hurt %d times (%d missed), want %d", f.GetKind(), got, missed, strokes*threads)
		}
	}
	if h.udp.count() != arrived {
		h.n.t.Errorf("%d packets arrived", h.udp.count()-arrived)
	}
}

// spares checks that the worker is hurt by none. The daemon need not run.
func (h *harm) spares(w *worker, who string, threads int) {
	h.n.t.Helper()
	arrived := h.udp.count()
	if dialled, want := h.each(w, who, threads), fmt.Sprintf("map[ok:%d]", strokes*threads); dialled != want {
		h.n.t.Errorf("connecting it saw %s, want %s", dialled, want)
	}
	h.n.until("its packets arrive", func() bool { return h.udp.count() == arrived+strokes*threads })
}

// untouched is spares with a look at the counters: not even delays were given.
func (h *harm) untouched(w *worker, who string, threads int) {
	h.n.t.Helper()
	before := h.injected()
	h.spares(w, who, threads)
	if after := h.injected(); after != before {
		h.n.t.Errorf("hurt (connect, packet, syscall) %v, before %v", after, before)
	}
}

// free waits until connections and packets of the target pass; the daemon need not run.
func (h *harm) free(w *worker) {
	h.n.t.Helper()
	h.n.until("the target is free", func() bool { return w.do("dial tcp4 %s 30s 1 1", h.server) == "map[ok:1]" })
	h.spares(w, "", 1)
}

// ended checks that all three ended, and why.
func (h *harm) ended(reason string) {
	h.n.t.Helper()
	for _, f := range h.faults() {
		h.n.until(f.GetKind()+" ended", func() bool { return h.n.get(f.GetId()).GetState() == "ended" })
		if got := h.n.get(f.GetId()).GetReason(); got != reason {
			h.n.t.Errorf("%s ended because: %s, want %s", f.GetKind(), got, reason)
		}
	}
}
