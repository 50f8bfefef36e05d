package daemon

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/audit"
	"faultd/bpf"
	"faultd/faults"
	"faultd/undo"
)

// experimentRun is a run of an experiment, from BeginRun to EndRun. The process that asked carries it out; its faults end with their leases,
// and as soon as the process is gone.
type experimentRun struct {
	id, experiment string
	by             *runner
	who            audit.Who
	// phase that it is in, and told is what came of its probes, as it says.
	phase string
	told  map[probePhase]*v1.ProbeResult
}

// runner is a process that carries out experiments, be it several at once. Its faults know it, and not the run: which of its runs asked for one
// it does not say.
type runner struct {
	pid int
	// born is when the process was, as its number may be given to another.
	born uint64
	// gone: it is no more.
	gone bool
}

// look finds out whether the process is still there.
func (r *runner) look() {
	runs, err := undo.Runs(r.pid, r.born)
	r.gone = err != nil || !runs
}

// runnerOf is the process with this number, if it carries out experiments, or nil.
func (d *Daemon) runnerOf(pid int) *runner {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runs {
		if r.by.pid == pid {
			return r.by
		}
	}
	return nil
}

// runners are the processes of which runs or faults are left. Call with d.mu held.
func (d *Daemon) runners() map[*runner]bool {
	all := map[*runner]bool{}
	for _, r := range d.runs {
		all[r.by] = true
	}
	for _, f := range d.faults {
		if f.by != nil && f.state == stateActive {
			all[f.by] = true
		}
	}
	return all
}

// tendRuns sees which processes are gone, and ends their runs. Call with d.mu held.
func (d *Daemon) tendRuns() {
	for r := range d.runners() {
		r.look()
	}
	for id, r := range d.runs {
		if !r.by.gone {
			continue
		}
		delete(d.runs, id)
		d.observe(r, nil).verdicts["interrupted"]++
		d.log.Warn("run is over: its process is gone", "run", id, "experiment", r.experiment)
		d.noteLater(audit.Record{Action: "run-end", Who: audit.Self(), Subject: id, Why: "the process that carried it out is gone", Outcome: "interrupted"})
	}
}

// BeginRun implements the service.
func (s server) BeginRun(ctx context.Context, req *connect.Request[v1.BeginRunRequest]) (*connect.Response[v1.BeginRunResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	if err := s.d.beginRun(req.Msg, peerOf(ctx)); err != nil {
		return nil, rpcError(err)
	}
	return connect.NewResponse(&v1.BeginRunResponse{}), nil
}

func (d *Daemon) beginRun(m *v1.BeginRunRequest, p peer) error {
	born, err := undo.StartTime(p.pid)
	if err != nil {
		return badInput("run: the process that asks (%s) is not seen from here, so nobody would know when it is gone: %w", p, err)
	}
	length, err := faults.ParseDuration("duration", m.GetDuration(), 0, 31*wholeDay)
	if err != nil {
		return fmt.Errorf("%w: %w", errBadInput, err)
	}
	if err := d.config.Allow.time(time.Now(), time.Now().Add(length)); err != nil {
		return err
	}
	r := &experimentRun{id: m.GetRun(), experiment: m.GetExperiment(), by: &runner{pid: p.pid, born: born}, who: p.who(), told: map[probePhase]*v1.ProbeResult{}}
	if err := d.admitRun(r); err != nil {
		return err
	}
	err = d.auditFirst(audit.Record{Action: "run-begin", Who: r.who, Subject: r.id, Why: m.GetHypothesis(), What: particulars(m), Outcome: "begun"})
	if err != nil {
		d.mu.Lock()
		delete(d.runs, r.id)
		d.mu.Unlock()
		return err
	}
	d.log.Info("run begins", "run", r.id, "experiment", r.experiment, "owner", p.String())
	return nil
}

// admitRun refuses a run with the id of another, and more of them than the limit.
func (d *Daemon) admitRun(r *experimentRun) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[r.id] != nil {
		return badInput("run: %q is under way already; choose another id", r.id)
	}
	if n := len(d.runs); n >= d.config.Limits.MaxExperiments {
		return fmt.Errorf("%w: %d experiments are under way, limits.maxExperiments is %d; wait for the end of one", bpf.ErrFull, n, d.config.Limits.MaxExperiments)
	}
	for by := range d.runners() {
		if by.pid == r.by.pid && by.born == r.by.born {
			r.by = by
		}
	}
	d.runs[r.id] = r
	d.observe(r, nil)
	return nil
}

// TellRun implements the service.
func (s server) TellRun(ctx context.Context, req *connect.Request[v1.TellRunRequest]) (*connect.Response[v1.TellRunResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	r := s.d.runs[req.Msg.GetRun()]
	if r == nil {
		return nil, noRun(req.Msg.GetRun())
	}
	r.phase = req.Msg.GetPhase()
	s.d.observe(r, req.Msg.GetProbes())
	return connect.NewResponse(&v1.TellRunResponse{}), nil
}

func noRun(id string) error {
	return rpcError(fmt.Errorf("run %q: %w: no such run is under way", id, errNotFound))
}

// EndRun implements the service.
func (s server) EndRun(ctx context.Context, req *connect.Request[v1.EndRunRequest]) (*connect.Response[v1.EndRunResponse], error) {
	if err := s.d.mayInject(ctx); err != nil {
		return nil, err
	}
	m := req.Msg
	s.d.mu.Lock()
	r := s.d.runs[m.GetRun()]
	delete(s.d.runs, m.GetRun())
	if r != nil {
		s.d.observe(r, m.GetProbes()).verdicts[m.GetVerdict()]++
	}
	s.d.mu.Unlock()
	if r == nil {
		return nil, noRun(m.GetRun())
	}
	s.d.note(audit.Record{Action: "run-end", Who: peerOf(ctx).who(), Subject: r.id, Why: m.GetReason(), Outcome: m.GetVerdict()}, nil)
	s.d.log.Info("run ends", "run", r.id, "experiment", r.experiment, "verdict", m.GetVerdict())
	return connect.NewResponse(&v1.EndRunResponse{}), nil
}
