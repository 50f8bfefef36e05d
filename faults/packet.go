package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// Packet loses packets of the target, as a wire would: the sender is not told. Or it makes them late, or hurts them otherwise.
type Packet struct {
	// Loss is the chance of each packet, or with PerFlow of each flow, in (0,100]. At most one of this, Gemodel and State.
	Loss float64
	// Correlation is how much a loss depends on the one before, in percent; Burst how many packets in a row are lost with each.
	Correlation float64
	Burst       uint32
	// Gemodel and State lose in bursts, as a chain does.
	Gemodel *GilbertElliott
	State   *FourState
	// Direction is "egress", "ingress" or "both"; empty: both, or with a Wire egress.
	Direction string
	// Traffic says which packets are meant.
	Traffic Traffic
	// PerFlow throws the dice once per flow.
	PerFlow bool
	// CorruptPayload changes a bit of the data of TCP segments and UDP datagrams, and their checksum with it. Alone.
	CorruptPayload bool
	// Wire is what happens to packets that are not lost.
	Wire Wire
}

// ErrNoProcess says that nobody can tell where the target's packets leave.
var ErrNoProcess = errors.New("target: it has no process, so its network namespace is unknown; start it first (only packet and partition with direction ingress need none)")

// errNoProcessYet says it of what comes in, where no direction works.
var errNoProcessYet = errors.New("target: it has no process, so its network namespace is unknown; start it first")

func newPacket(spec *v1.FaultSpec) (Fault, error) {
	if spec.GetPacket() == nil {
		return nil, nil
	}
	p := spec.GetPacket()
	packet := Packet{
		Loss: p.GetLoss(), Correlation: p.GetLossCorrelation(), Burst: p.GetLossBurst(), Gemodel: newGilbertElliott(p.GetLossGemodel()), State: newFourState(p.GetLossState()),
		Direction: p.GetDirection(), Traffic: newTraffic(p), PerFlow: p.GetPerFlow(), CorruptPayload: p.GetCorruptPayload(), Wire: newWire(p),
	}
	if !packet.loses() {
		return packet, nil
	}
	if spec.Percent != nil {
		return nil, fmt.Errorf("loss: it is the dice, and percent (%v) was given too; give loss alone", spec.GetPercent())
	}
	if packet.Wire != (Wire{}) && (spec.GetEveryNth() > 1 || spec.GetSkipFirst() > 0 || spec.GetMaxHits() > 0 || spec.GetRate() > 0) {
		return nil, errors.New("loss: with delay and the like everyNth, skipFirst, maxHits and rate could mean either; make two faults of it")
	}
	return packet, nil
}

func packetParameters() []Parameter {
	return slices.Concat(lossParameters(), []Parameter{
		{"direction", "egress|ingress|both", "empty: both, or egress if anything but loss is asked for"},
		{"perFlow", "bool", "the dice is thrown once per flow"},
		{"corruptPayload", "bool", "a bit of the data is changed, and the checksum with it, so that only the program can notice; alone, with percent as the dice"},
	}, wireParameters(), trafficParameters())
}

// Validate implements Fault.
func (p Packet) Validate() error {
	_, err := p.rule(Common{})
	return err
}

func (p Packet) rule(common Common) (rule bpf.Rule, err error) {
	wire, err := p.Wire.parse()
	if err != nil {
		return rule, err
	}
	rule = common.rule()
	rule.PerFlow, rule.Wire = p.PerFlow, wire
	if err := p.actionInto(&rule); err != nil {
		return rule, err
	}
	if rule.Egress, rule.Ingress, err = p.directions(); err != nil {
		return rule, err
	}
	if rule.Wire != nil || rule.Action == bpf.ActionChange { // what shall wait, or be changed, is met at the devices
		rule.Ingress, rule.Incoming = false, rule.Ingress
	}
	rule.Traffic, err = p.Traffic.kernel(nil)
	return rule, err
}

// actionInto says what becomes of the packets.
func (p Packet) actionInto(rule *bpf.Rule) error {
	switch {
	case p.CorruptPayload && (p.loses() || rule.Wire != nil):
		return errors.New("corruptPayload: true was given together with loss, delay or the like; make two faults of it: a packet whose data was changed goes on to the next fault")
	case p.CorruptPayload:
		rule.Action = bpf.ActionChange
	case rule.Wire != nil && !p.loses():
		rule.Action = bpf.ActionQueue
	default:
		rule.Action = bpf.ActionLose
		return p.lossInto(rule)
	}
	return nil
}

func parseDirection(text string) (egress, ingress bool, err error) {
	switch text {
	case "", "both":
		return true, true, nil
	case "egress":
		return true, false, nil
	case "ingress":
		return false, true, nil
	}
	return false, false, fmt.Errorf("direction: %q is unknown; it must be egress, ingress or both", text)
}

// directions says which packets are meant.
func (p Packet) directions() (egress, ingress bool, err error) {
	if p.Direction == "" && (p.Wire != (Wire{}) || p.CorruptPayload) {
		return true, false, nil
	}
	return parseDirection(p.Direction)
}

// Mechanism implements Fault.
func (p Packet) Mechanism(_ context.Context, env Env) (string, error) {
	rule, err := p.rule(Common{})
	if err != nil {
		return "", err
	}
	return env.Kernel.PacketMechanism(rule)
}

// Inject implements Fault.
func (p Packet) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	mechanism, err := p.Mechanism(ctx, env)
	if err != nil {
		return nil, err
	}
	rule, err := p.rule(common)
	if err != nil {
		return nil, err
	}
	meant, err := p.Traffic.meant(ctx, env, target, "packet", rule.Traffic)
	if err != nil {
		return nil, err
	}
	rule.Traffic = meant.traffic
	installed, err := installPacket(ctx, meant, common.ID, rule)
	if err != nil {
		return nil, err
	}
	h := meant.follow(ctx, &ruleHandle{installed: installed, mechanism: mechanism, rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(Packet).rule(common) }})
	if rule.Wire == nil && !rule.Incoming {
		return h, nil
	}
	return watchQueuesOf(ctx, h, installed), nil
}

// installPacket puts a rule on the packets of the target, in the network namespaces its processes live in now.
func installPacket(ctx context.Context, m *meant, id string, rule bpf.Rule) (*bpf.Installed, error) {
	return atHomes(ctx, m, id, rule, func(_ []home, packets bpf.PacketEnv) (*bpf.Installed, error) {
		return m.env.Kernel.InstallPacket(kernelTarget(m.env, m.target), rule, packets)
	})
}

// atHomes has a rule on packets installed for the network namespaces that the target's processes live in now. If it is about what leaves, there
// must be one, and what the target gets while the fault runs is covered too.
func atHomes(ctx context.Context, m *meant, id string, rule bpf.Rule, install func([]home, bpf.PacketEnv) (*bpf.Installed, error)) (*bpf.Installed, error) {
	homes, err := homesOf(m.env, m.target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	if err := needsHome(rule, homes); err != nil {
		return nil, err
	}
	installed, err := install(homes, packetEnv(ctx, m.env, id, m.target, rule.Traffic, homes))
	if err == nil && (rule.Egress || rule.Incoming) {
		ctx := context.WithoutCancel(ctx)
		m.cover = func(homes []home) error {
			return installed.Cover(packetEnv(ctx, m.env, id, m.target, rule.Traffic, homes))
		}
	}
	return installed, err
}

// needsHome refuses what hurts packets at the devices of a target that has none.
func needsHome(rule bpf.Rule, homes []home) error {
	switch {
	case len(homes) > 0:
	case rule.Incoming:
		return errNoProcessYet
	case rule.Egress:
		return ErrNoProcess
	}
	return nil
}

// packetEnv is for the packets of a fault on a target, at the devices of homes.
func packetEnv(ctx context.Context, env Env, id string, target cgroup.Target, traffic bpf.Traffic, homes []home) bpf.PacketEnv {
	return bpf.PacketEnv{
		Namespaces: namespacesOf(homes),
		Others:     func(ns bpf.NetNS) (string, error) { return othersIn(env, target, ns, traffic) },
		JournalDevice: func(d bpf.Device) (func() error, error) {
			return journalled(ctx, env.Journal, id, undo.Action{Version: 7, RemoveDevice: &undo.RemoveDevice{NetNSInode: d.NetNSInode, Ifname: d.Ifname, Kind: d.Kind}})
		},
		Journal: func(f bpf.Filter) (func() error, error) {
			return journalled(ctx, env.Journal, id, undo.Action{Version: version(f.NoQueue, 1), RemoveFilter: &undo.RemoveFilter{
				NetNSInode: f.NetNSInode, Ifindex: f.Ifindex, Ifname: f.Ifname, Parent: f.Parent,
				Handle: f.Handle, Priority: f.Priority, Name: f.Name, OwnsQdisc: f.OwnsQdisc, NoQueue: f.NoQueue,
			}})
		},
		JournalQueue: func(q bpf.Queue) (func() error, error) {
			return journalled(ctx, env.Journal, id, undo.Action{Version: version(q.NoQueue, 3), RemoveQdisc: &undo.RemoveQdisc{
				NetNSInode: q.NetNSInode, Ifindex: q.Ifindex, Ifname: q.Ifname, Handle: q.Handle, Kind: q.Kind, NoQueue: q.NoQueue,
			}})
		},
	}
}

// version is that of what removes a qdisc, which has grown by one field.
func version(noQueue bool, without int) int {
	if noQueue {
		return 8
	}
	return without
}

// journalled writes an action down before the change is made; the result undoes the change and strikes the action out.
func journalled(ctx context.Context, journal *undo.Journal, id string, action undo.Action) (func() error, error) {
	entry, err := journal.Begin(id, action)
	if err != nil {
		return nil, fmt.Errorf("write into the journal what will be changed: %w", err)
	}
	return func() error {
		// The fault's own context may be over; undoing is not.
		if _, err := action.Undo(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		return journal.Done(entry)
	}, nil
}
