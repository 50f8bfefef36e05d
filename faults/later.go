package faults

import (
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

// coverLater has a rule hurt what leaves by devices, and from network namespaces, that the target gets while the fault runs: cover is told now and
// then where its processes live. It ends with the rule.
func coverLater(env Env, target cgroup.Target, installed *bpf.Installed, cover func([]home) error) {
	timer := time.NewTicker(followInterval)
	defer timer.Stop()
	for {
		select {
		case <-installed.Over():
			return
		case <-timer.C:
		}
		homes, err := homesOf(env, target)
		if err != nil {
			continue // the target is about to end
		}
		if len(homes) > 0 {
			_ = cover(homes) // what cannot be asked now is asked again
		}
		closeHomes(homes)
	}
}
