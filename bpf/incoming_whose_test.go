package bpf

import (
	"strings"
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

// TestByLookUp: a rule on what comes into a namespace that its target has for itself has no note on look-ups, also when it is over; once somebody
// else has come it has, for good.
func TestByLookUp(t *testing.T) {
	kernels.OnHost(t)
	requireRoot(t)
	one := &incoming{ns: NetNS{Inode: 7, File: unshared(t)}}
	in := &Installed{target: Target{Ancestors: []uint64{1}}, queues: &queues{incoming: []*incoming{one}, living: map[uint64]string{7: ""}}}
	want := func(when, what string) {
		t.Helper()
		if got := strings.Join(in.ByLookUp(), "; "); (got == "") != (what == "") || !strings.Contains(got, what) {
			t.Errorf("%s it notes %q, want %q", when, got, what)
		}
	}
	release, err := one.claim(in.target)
	if err != nil {
		t.Fatal(err)
	}
	want("at first", "")
	if err := release(); err != nil {
		t.Fatal(err)
	}
	want("when it is over", "")
	in.others(one.ns, "somebody lives there")
	if err := one.look(in.target, "somebody lives there"); err != nil {
		t.Fatal(err)
	}
	want("with somebody else", "by socket look-up in network namespace 7, as somebody lives there")
}
