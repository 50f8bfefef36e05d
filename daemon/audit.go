package daemon

import (
	"context"
	"encoding/json"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/audit"
)

// Actions of the audit log that nobody calls for.
const (
	actionStart = "daemon-start"
	actionStop  = "daemon-stop"
	actionEnd   = "end"
	actionLapse = "lapse"
)

// audited is a call as the audit log has it.
type audited struct {
	action, subject, why string
	// what is the part of the request that says what was asked for, if there is one.
	what proto.Message
	// silent calls are written down only when they are refused: they change nothing, or write it down themselves.
	silent bool
}

// auditedCall says how a request is written down; ok is false for those that only read.
func auditedCall(request any) (call audited, ok bool) {
	switch r := request.(type) {
	case *v1.InjectRequest:
		// What begins is written down before it does: see inject.
		return audited{action: "inject", why: r.GetReason(), what: r.GetSpec(), silent: true}, true
	case *v1.UpdateRequest:
		return audited{action: "update", subject: r.GetId(), what: r, silent: renewal(r)}, true
	case *v1.StopRequest:
		return audited{action: "stop", subject: r.GetId(), why: r.GetReason()}, true
	case *v1.StopAllRequest:
		return audited{action: "stop-all", why: r.GetReason()}, true
	case *v1.KillRequest:
		return audited{action: "kill", why: r.GetReason()}, true
	case *v1.ArmRequest:
		return audited{action: "arm", why: r.GetReason()}, true
	case *v1.BeginRunRequest:
		return audited{action: "run-begin", subject: r.GetRun(), why: r.GetHypothesis(), what: r, silent: true}, true
	case *v1.EndRunRequest:
		return audited{action: "run-end", subject: r.GetRun(), silent: true}, true
	}
	return audited{}, false
}

// renewal: a quiet update that only moves the deadline, as a run does each second. When the fault ended is written down.
func renewal(r *v1.UpdateRequest) bool {
	return r.GetQuiet() && r.Percent == nil && r.Loss == nil && r.GetDelay() == "" && r.GetJitter() == "" && r.GetDistribution() == ""
}

// auditCalls writes calls down after they were answered, also those that were refused.
func (d *Daemon) auditCalls(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		call, ok := auditedCall(request.Any())
		response, err := next(ctx, request)
		if ok && (err != nil || !call.silent) {
			d.note(audit.Record{Action: call.action, Who: peerOf(ctx).who(), Subject: call.subject, Why: call.why, What: particulars(call.what), Outcome: outcome(err)}, err)
		}
		return response, err
	}
}

// outcome of a call, in a word.
func outcome(err error) string {
	if err == nil {
		return "done"
	}
	switch connect.CodeOf(err) {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return "failed"
	}
	return "refused"
}

// particulars are a message as the log has it.
func particulars(m proto.Message) json.RawMessage {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	text, err := protojson.Marshal(m)
	if err != nil { // a text that is not UTF-8
		text, _ = json.Marshal(map[string]string{"unreadable": err.Error()})
	}
	return text
}

// auditFirst writes down what is about to be done. What cannot be written down is not done.
func (d *Daemon) auditFirst(r audit.Record) error {
	if _, err := audit.Append(d.options.StateDir, r); err != nil {
		return fmt.Errorf("%w; without it nothing is begun", err)
	}
	return nil
}

// note writes down what has happened: that it cannot be is no reason to undo it. Not with d.mu held, as it waits for the disk.
func (d *Daemon) note(r audit.Record, err error) {
	if err != nil {
		r.Error = err.Error()
	}
	if _, err := audit.Append(d.options.StateDir, r); err != nil {
		d.log.Error("something is not in the audit log", "action", r.Action, "subject", r.Subject, "outcome", r.Outcome, "error", err)
	}
}

// noteLater is note for whoever holds d.mu.
func (d *Daemon) noteLater(r audit.Record) { d.closing.Go(func() { d.note(r, nil) }) }

// noteEnd writes down what a fault came to.
func (d *Daemon) noteEnd(f *fault) {
	what, _ := json.Marshal(map[string]any{"kind": f.kind, "cgroup": f.where(), "injected": f.handle.Counters().Injected, "matched": f.handle.Counters().Matched})
	d.note(audit.Record{Action: actionEnd, Who: audit.Self(), Subject: f.id, Why: f.reason, What: what, Outcome: f.verdict}, nil)
}

// place says where this is.
func (d *Daemon) place() json.RawMessage {
	text, _ := json.Marshal(map[string]string{"environment": d.config.Environment, "kernel": kernelRelease()})
	return text
}

// who is a peer as the audit log has it.
func (p peer) who() audit.Who { return audit.Process(p.pid, p.uid, p.gid) }
