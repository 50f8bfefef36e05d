package faults

import "faultd/cgroup"

// What is held by number needs room, and some of it a place in the target's network.
var (
	_ Rehearser = FDs{}
	_ Rehearser = Ports{}
	_ Rehearser = Backlog{}
)

// Rehearse implements Rehearser.
func (f FDs) Rehearse(env Env, target cgroup.Target) error {
	_, _, err := f.amounts(env, target)
	return rehearseBurner(env, target, f.Place, err)
}

// Rehearse implements Rehearser.
func (p Ports) Rehearse(env Env, target cgroup.Target) error {
	homes, err := homesToStandIn(env, target)
	defer closeHomes(homes)
	if err == nil {
		_, err = p.wanted(env, target, homes)
	}
	return rehearseBurner(env, target, p.Place, err)
}

// Rehearse implements Rehearser.
func (b Backlog) Rehearse(env Env, target cgroup.Target) error {
	homes, err := homesToStandIn(env, target)
	defer closeHomes(homes)
	if err == nil {
		_, err = b.work(env, target, homes)
	}
	return rehearseBurner(env, target, b.Place, err)
}
