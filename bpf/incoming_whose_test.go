package bpf

import (
	"testing"

	"faultd/test/kernels"
)

// TestRewritesAreLookedForOnce: however many rules on what comes into a namespace look again who lives there, they do not look each whether
// addresses are rewritten. The descriptor of the namespace is closed meanwhile, so that a look would show.
func TestRewritesAreLookedForOnce(t *testing.T) {
	kernels.OnHost(t)
	requireRoot(t)
	own, err := NetNS{File: unshared(t)}.dup()
	if err != nil {
		t.Fatal(err)
	}
	in := &incoming{ns: own}
	look := func(target Target) {
		t.Helper()
		if err := in.look(target, "somebody lives there"); err != nil {
			t.Fatal(err)
		}
	}
	look(Target{Ancestors: []uint64{1}})
	if err := own.File.Close(); err != nil {
		t.Fatal(err)
	}
	look(Target{Ancestors: []uint64{1}})
	look(Target{Ancestors: []uint64{2}})
	if got := in.told(); !got.sockets || got.rewritten != "" {
		t.Errorf("told %+v", got)
	}
	if err := in.lookAtRewrites(); err != nil || in.told().rewritten == "" {
		t.Errorf("a look shows %+v, %v", in.told(), err)
	}
}
