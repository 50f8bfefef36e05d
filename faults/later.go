package faults

import (
	"time"

	"faultd/bpf"
	"faultd/cgroup"
)

// followInterval is how often it is looked what names mean, what is to be spared and where the target lives while a fault runs.
const followInterval = 5 * time.Second

// followHomes looks again and again where the target lives, until over is closed. While it lives nowhere, or that cannot be told, it is about to
// end.
func followHomes(env Env, target cgroup.Target, over <-chan struct{}, look func([]home)) {
	timer := time.NewTicker(followInterval)
	defer timer.Stop()
	for {
		select {
		case <-over:
			return
		case <-timer.C:
		}
		homes, err := homesOf(env, target)
		if err == nil && len(homes) > 0 {
			look(homes)
		}
		closeHomes(homes)
	}
}

// coverLater has a rule hurt what leaves from network namespaces that the target gets while it runs, as a followingHandle does for traffic that
// somebody may be spared of. It ends with the rule.
func coverLater(env Env, target cgroup.Target, installed *bpf.Installed) {
	followHomes(env, target, installed.Over(), func(homes []home) {
		_ = installed.CoverNamespaces(namespacesOf(homes)) // what cannot be had now is tried again
	})
}
