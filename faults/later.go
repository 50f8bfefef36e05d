package faults

import (
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

// coverLater has a rule hurt what leaves from network namespaces that the target gets while it runs, as a followingHandle does for traffic that
// somebody may be spared of. It ends with the rule.
func coverLater(env Env, target cgroup.Target, installed *bpf.Installed) {
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
			_ = installed.CoverNamespaces(namespacesOf(homes)) // what cannot be had now is tried again
		}
		closeHomes(homes)
	}
}
