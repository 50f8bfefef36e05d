package bpf

import (
	"errors"
	"slices"
)

// Parts is one fault that takes several rules, one per mechanism. They share the dice and the counters of the first.
type Parts []*Installed

// Update is Installed.Update, of all.
func (p Parts) Update(r Rule) error {
	var errs []error
	for _, in := range p {
		errs = append(errs, in.Update(r))
	}
	return errors.Join(errs...)
}

// SetPeers is Installed.SetPeers, of all.
func (p Parts) SetPeers(peers Peers) error {
	var errs []error
	for _, in := range p {
		errs = append(errs, in.SetPeers(peers))
	}
	return errors.Join(errs...)
}

// Counters is what happened to all of them.
func (p Parts) Counters() Counters {
	c, reach := p[0].Counters(), p[0].reachOf32()
	for _, in := range p[1:] {
		more := in.Counters()
		c.Missed += more.Missed
		reach = reach.and(in.reachOf32())
		// They arrived once, however many parts have seen them.
		c.Arrived = Arrivals{max(c.Arrived.Programs, more.Arrived.Programs), max(c.Arrived.Rings, more.Arrived.Rings), reach.String()}
	}
	return c
}

// Harmed is Installed.Harmed, of any; they share its counter.
func (p Parts) Harmed() bool { return p[0].Harmed() }

// Uncovered is Installed.Uncovered, of all.
func (p Parts) Uncovered() (notes []string) {
	for _, in := range p {
		notes = append(notes, in.Uncovered()...)
	}
	return notes
}

// Disarm is Installed.Disarm, of all.
func (p Parts) Disarm() error {
	var errs []error
	for _, in := range p {
		errs = append(errs, in.Disarm())
	}
	return errors.Join(errs...)
}

// Close is Installed.Close, of all; the first one, which has the counters, goes last and only after the others.
func (p Parts) Close() error {
	err := p.Disarm()
	for _, in := range slices.Backward(p) {
		if closeErr := in.Close(); closeErr != nil {
			return errors.Join(err, closeErr)
		}
	}
	return err
}
