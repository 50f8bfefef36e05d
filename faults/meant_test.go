package faults

import (
	"strings"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/cgrouptest"
)

// TestSparedIsTold: the notes say what is spared where it would have been hurt, and nothing else.
func TestSparedIsTold(t *testing.T) {
	cgrouptest.RequireRoot(t)
	h := dnsHome(t)
	of := func(ops ...string) Traffic {
		fault, err := newConnect(&v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EIO", Ops: ops}}})
		if err != nil {
			t.Fatal(err)
		}
		return fault.(Connect).Traffic
	}
	for name, c := range map[string]struct {
		kind  string
		asked Traffic
		want  []string
	}{
		"connections":                     {"connect", of(), []string{"DNS", "metadata"}},
		"new sockets, and connections":    {"connect", of("socket", "connect"), []string{"DNS", "metadata"}},
		"new sockets have no peers":       {"connect", of("socket", "bind", "listen", "accept"), nil},
		"requests never go to port 53":    {"http", Traffic{}, []string{"metadata"}},
		"SSH is told of what may come in": {"packet", Traffic{}, []string{"SSH", "DNS", "metadata"}},
	} {
		m := &meant{kind: c.kind, asked: c.asked}
		if err := m.lookAround([]home{h}); err != nil {
			t.Fatal(err)
		}
		_, notes, err := m.decide([]home{h})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		told := strings.Join(notes, "; ")
		if len(notes) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, told, c.want)
		}
		for _, want := range c.want {
			if !strings.Contains(told, want) {
				t.Errorf("%s: %q does not tell of %s", name, told, want)
			}
		}
	}
}

// TestNameThatIsNotThere is refused where it was given.
func TestNameThatIsNotThere(t *testing.T) {
	for want, asked := range map[string]Traffic{
		"peers":          {Peers: []string{"10.0.0.1", "a.test"}, Except: []string{"b.test"}},
		"traffic.except": {Peers: []string{"10.0.0.1", "b.test"}, Except: []string{"a.test"}},
	} {
		if got := asked.fieldOf("a.test"); got != want {
			t.Errorf("a.test of %+v was given in %s, want %s", asked, got, want)
		}
	}
}
