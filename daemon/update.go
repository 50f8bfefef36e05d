package daemon

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/faults"
)

// update changes a running fault.
func (d *Daemon) update(req *v1.UpdateRequest) (*v1.Fault, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.faults[req.GetId()]
	if f == nil {
		return nil, fmt.Errorf("fault %q: %w; `faultd list` shows what there is", req.GetId(), errNotFound)
	}
	if f.state != stateActive {
		return nil, badInput("id: fault %s has ended (%s)", f.id, f.reason)
	}
	spec := proto.CloneOf(f.spec)
	if err := change(spec, req); err != nil {
		return nil, err
	}
	_, changed, err := faults.New(spec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadInput, err)
	}
	common := f.common
	if req.Percent != nil {
		common.Percent = req.GetPercent()
	}
	if req.GetDuration() != "" {
		duration, err := faults.ParseDuration("duration", req.GetDuration(), time.Millisecond, d.config.Limits.MaxDuration)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBadInput, err)
		}
		common.Until = time.Now().Add(duration)
		if err := errors.Join(d.config.Allow.time(time.Now(), common.Until), d.budget.admit(time.Now(), common.Until)); err != nil {
			return nil, err
		}
	}
	if err := f.handle.Update(changed, common); err != nil {
		return nil, err
	}
	f.spec, f.common = spec, common
	if !req.GetQuiet() {
		d.log.Info("fault updated", "fault", f.id)
		d.events.send("updated", f.message(), "")
	}
	d.wake()
	return f.message(), nil
}

// change puts what an update asks for into a spec, and refuses what its kind does not have.
func change(spec *v1.FaultSpec, req *v1.UpdateRequest) error {
	if req.Percent != nil {
		spec.Percent = req.Percent
	}
	if req.Loss != nil {
		if spec.GetPacket() == nil {
			return badInput("loss: only a packet fault has it")
		}
		spec.GetPacket().Loss = req.GetLoss()
	}
	return changeDelay(spec, req)
}

// changeDelay changes what is given of a delay.
func changeDelay(spec *v1.FaultSpec, req *v1.UpdateRequest) error {
	if req.GetDelay() == "" && req.GetJitter() == "" && req.GetDistribution() == "" {
		return nil
	}
	delay, jitter, distribution := delayOf(spec)
	if delay == nil {
		return badInput("delay: only faults of the kinds syscall, file, dns and http have it, and a packet fault that was started with one")
	}
	if spec.GetPacket() != nil && req.GetDistribution() == "uniform" && *distribution != "" && *distribution != "uniform" {
		return badInput("distribution: netem does not forget that it was %s; stop the fault and inject another one", *distribution)
	}
	for _, changed := range []struct {
		field *string
		to    string
	}{{delay, req.GetDelay()}, {jitter, req.GetJitter()}, {distribution, req.GetDistribution()}} {
		if changed.to != "" {
			*changed.field = changed.to
		}
	}
	return nil
}

// delayOf are the fields of a delay that can be changed while the fault runs; nil: it has none.
func delayOf(spec *v1.FaultSpec) (delay, jitter, distribution *string) {
	switch kind := spec.GetKind().(type) {
	case *v1.FaultSpec_Syscall:
		return &kind.Syscall.Delay, &kind.Syscall.Jitter, &kind.Syscall.Distribution
	case *v1.FaultSpec_File:
		return &kind.File.Delay, &kind.File.Jitter, &kind.File.Distribution
	case *v1.FaultSpec_Dns:
		return &kind.Dns.Delay, &kind.Dns.Jitter, &kind.Dns.Distribution
	case *v1.FaultSpec_Http:
		return &kind.Http.Delay, &kind.Http.Jitter, &kind.Http.Distribution
	case *v1.FaultSpec_Packet:
		if kind.Packet.GetDelay() != "" { // else it has no queue
			return &kind.Packet.Delay, &kind.Packet.Jitter, &kind.Packet.Distribution
		}
	}
	return nil, nil, nil
}
