package main

import (
	v1 "faultd/api/faultd/v1alpha1"
)

// The JSON that -o json prints. It is not protojson, which writes 64-bit numbers as strings; keys are stable.

type faultJSON struct {
	ID         string   `json:"id"`
	Kind       string   `json:"kind"`
	Target     string   `json:"target"`
	State      string   `json:"state"`
	Verdict    string   `json:"verdict"`
	Mechanism  string   `json:"mechanism"`
	Evaluated  uint64   `json:"evaluated"`
	Matched    uint64   `json:"matched"`
	Injected   uint64   `json:"injected"`
	NotApplied uint64   `json:"notApplied"`
	Spared     uint64   `json:"spared"`
	CutShort   uint64   `json:"cutShort"`
	Missed     uint64   `json:"missed"`
	Unknown    uint64   `json:"unknown"`
	Pulses     uint64   `json:"pulses"`
	Started    string   `json:"started"`
	Deadline   string   `json:"deadline"`
	Ended      string   `json:"ended"`
	Reason     string   `json:"reason"`
	Notes      []string `json:"notes"`
	Owner      string   `json:"owner"`
	// Targets are those of a fault that has several.
	Targets []targetJSON `json:"targets,omitempty"`
}

type targetJSON struct {
	Path     string `json:"path"`
	CgroupID uint64 `json:"cgroupId"`
	Started  string `json:"started"`
	Gone     string `json:"gone"`
	Matched  uint64 `json:"matched"`
	Injected uint64 `json:"injected"`
}

func newTargetsJSON(targets []*v1.FaultTarget) (rows []targetJSON) {
	for _, t := range targets {
		rows = append(rows, targetJSON{t.GetTarget().GetPath(), t.GetTarget().GetCgroupId(), t.GetStarted(), t.GetGone(), t.GetCounters().GetMatched(), t.GetCounters().GetInjected()})
	}
	return rows
}

func newFaultJSON(fault *v1.Fault) faultJSON {
	n := fault.GetCounters()
	return faultJSON{
		ID: fault.GetId(), Kind: fault.GetKind(), Target: targetOf(fault),
		State: fault.GetState(), Verdict: fault.GetVerdict(), Mechanism: fault.GetMechanism(),
		Evaluated: n.GetEvaluated(), Matched: n.GetMatched(), Injected: n.GetInjected(), NotApplied: n.GetNotApplied(),
		Spared: n.GetSpared(), CutShort: n.GetCutShort(), Missed: n.GetMissed(), Unknown: n.GetUnknown(), Pulses: n.GetPulses(),
		Started: fault.GetStarted(), Deadline: fault.GetDeadline(), Ended: fault.GetEnded(),
		Reason: fault.GetReason(), Notes: notNil(fault.GetNotes()), Owner: fault.GetOwner(), Targets: newTargetsJSON(fault.GetTargets()),
	}
}

func newFaultsJSON(faults []*v1.Fault) []faultJSON {
	rows := make([]faultJSON, 0, len(faults))
	for _, fault := range faults {
		rows = append(rows, newFaultJSON(fault))
	}
	return rows
}

type listJSON struct {
	Armed  bool        `json:"armed"`
	Reason string      `json:"reason"`
	Faults []faultJSON `json:"faults"`
}

type eventJSON struct {
	Time    string     `json:"time"`
	Type    string     `json:"type"`
	Message string     `json:"message"`
	Lost    uint64     `json:"lost"`
	Fault   *faultJSON `json:"fault,omitempty"`
}

func newEventJSON(event *v1.WatchResponse) eventJSON {
	e := eventJSON{Time: event.GetTime(), Type: event.GetType(), Message: event.GetMessage(), Lost: event.GetLost()}
	if event.GetFault() != nil {
		fault := newFaultJSON(event.GetFault())
		e.Fault = &fault
	}
	return e
}

type killJSON struct {
	Killed     bool   `json:"killed"`
	DaemonTold bool   `json:"daemonTold"`
	Ended      uint32 `json:"ended"`
	// WrittenDown: it outlasts a reboot. Why not is told on standard error.
	WrittenDown bool `json:"writtenDown"`
}

type armJSON struct {
	Armed bool `json:"armed"`
}

type checkJSON struct {
	Kernel       string           `json:"kernel"`
	Capabilities []capabilityJSON `json:"capabilities"`
}

type capabilityJSON struct {
	Kind      string `json:"kind"`
	Mechanism string `json:"mechanism"`
	Status    string `json:"status"`
	Reason    string `json:"reason"`
	Covers    string `json:"covers"`
}

func newCheckJSON(check *v1.CheckResponse) checkJSON {
	rows := make([]capabilityJSON, 0, len(check.GetCapabilities()))
	for _, row := range check.GetCapabilities() {
		rows = append(rows, capabilityJSON{row.GetKind(), row.GetMechanism(), row.GetStatus(), row.GetReason(), row.GetCovers()})
	}
	return checkJSON{check.GetKernel(), rows}
}

type residueJSON struct {
	Residue []string `json:"residue"`
}

type configJSON struct {
	Config string `json:"config"`
	OK     bool   `json:"ok"`
}

type kindJSON struct {
	Name       string          `json:"name"`
	Summary    string          `json:"summary"`
	Parameters []parameterJSON `json:"parameters"`
}

type parameterJSON struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Help string `json:"help"`
}

func newKindsJSON(kinds []*v1.Kind) []kindJSON {
	rows := make([]kindJSON, 0, len(kinds))
	for _, kind := range kinds {
		row := kindJSON{kind.GetName(), kind.GetSummary(), []parameterJSON{}}
		for _, p := range kind.GetParameters() {
			row.Parameters = append(row.Parameters, parameterJSON{p.GetName(), p.GetType(), p.GetHelp()})
		}
		rows = append(rows, row)
	}
	return rows
}

type whoJSON struct {
	Target   string      `json:"target"`
	CgroupID uint64      `json:"cgroupId"`
	Faults   []faultJSON `json:"faults"`
}

type versionJSON struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// notNil makes an absent list an empty one, which JSON tells apart.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
