package main

import (
	"errors"
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
)

const (
	// goalPacket is what a packet of the target may cost more while no rule means it, in ns. An echo is two packets: one leaves, one comes.
	goalPacket = 100
	// manyPeers is how many CIDRs a rule can have, manyTargets how many others have a rule; either may cost a fifth more than one.
	manyPeers, manyTargets = 1000, 100
	goalMany               = 1.20
)

// packets measures what packets cost that a fault looks at and lets pass.
func (b *bench) packets() error {
	target, err := b.group("packets")
	if err != nil {
		return err
	}
	return b.withDaemon(func(d *daemon) error {
		return b.withWorker(target, 1, func(w *worker) error {
			return errors.Join(b.packetsSpared(d, w, target), b.packetsOfMany(d, w, target))
		})
	})
}

// elsewhere is a loss of packets to peers that nobody here talks to: the documentation's networks.
func elsewhere(target string, peers int) *v1.FaultSpec {
	spec := packetFault(target)
	for i := range peers {
		spec.GetPacket().Peers = append(spec.GetPacket().Peers, fmt.Sprintf("198.%d.%d.0/24", 18+i/256, i%256))
	}
	return spec
}

// packetsSpared: one rule on the target itself, which matches nothing.
func (b *bench) packetsSpared(d *daemon, w *worker, target string) error {
	found, err := takeTurns(b.options.rounds, d.injecting(elsewhere(target, 1)), w.cost("udp-echo"), w.cost("tcp-echo"))
	if err != nil {
		return err
	}
	b.report.addCost("sendto and recvfrom of the target, loss elsewhere (2 packets)", found[0], 2*goalPacket)
	b.report.addRate("64 KiB sent and received by TCP on loopback, the same", found[1].perSecond(), goalRate)
	return nil
}

// packetsOfMany: a rule with many peers, and many targets with a rule each, beside one of either.
func (b *bench) packetsOfMany(d *daemon, w *worker, target string) error {
	var one, peers, targets []float64
	for range b.options.rounds {
		for _, m := range []struct {
			costs *[]float64
			on    func() error
		}{
			{&one, func() error { return d.injectAll(elsewhere(target, 1)) }},
			{&peers, func() error { return d.injectAll(elsewhere(target, manyPeers)) }},
			{&targets, func() error { return b.injectBeside(d, elsewhere(target, 1)) }},
		} {
			if err := m.on(); err != nil {
				return errors.Join(err, d.stopAll())
			}
			cost, err := w.cost("udp-echo")()
			if err := errors.Join(err, d.stopAll()); err != nil {
				return err
			}
			*m.costs = append(*m.costs, cost)
		}
	}
	b.report.addShare(fmt.Sprintf("sendto and recvfrom of the target, a rule of %d CIDRs beside one of one", manyPeers), pairs{one, peers}, goalMany)
	b.report.addShare(fmt.Sprintf("the same, rules on %d other targets", manyTargets), pairs{one, targets}, goalMany)
	return nil
}

// injectBeside injects a fault, and one like it on each of many other targets, which need no process for what comes in.
func (b *bench) injectBeside(d *daemon, spec *v1.FaultSpec) error {
	specs := []*v1.FaultSpec{spec}
	for i := range manyTargets {
		other, err := b.group(fmt.Sprintf("packets-beside/%d", i))
		if err != nil {
			return err
		}
		fault := elsewhere(other, 1)
		fault.GetPacket().Direction = "ingress"
		specs = append(specs, fault)
	}
	return d.injectAll(specs...)
}
