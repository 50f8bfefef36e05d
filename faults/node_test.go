package faults

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/undo"
)

func TestNodeRefusals(t *testing.T) {
	for want, node := range map[string]*v1.Node{
		`node.action: "explode" must be one of reboot`:         {Action: "explode", IMeanThisNode: true},
		"node.iMeanThisNode: missing; reboot hurts everything": {Action: "reboot"},
		`node.unit: "kubelet" must be the name of a service`:   {Action: "pause-unit", Unit: "kubelet", IMeanThisNode: true},
		`node.unit: "" must be the name of a service`:          {Action: "pause-unit", IMeanThisNode: true},
		"node.unit: it was given with hang":                    {Action: "hang", Unit: "kubelet.service", IMeanThisNode: true},
		"node.amount: amount or floor was given with reboot":   {Action: "reboot", Amount: "1GiB", IMeanThisNode: true},
		"node.offset: clock-jump needs one":                    {Action: "clock-jump", IMeanThisNode: true},
		"node.offset: clock-jump needs one, ":                  {Action: "hang", Offset: "1h", IMeanThisNode: true},
		`node.offset: "soon" is no duration`:                   {Action: "clock-jump", Offset: "soon", IMeanThisNode: true},
		`node.offset: -10ms is out of range`:                   {Action: "clock-jump", Offset: "-10ms", IMeanThisNode: true},
		`node.offset: 100000h0m0s is out of range`:             {Action: "clock-jump", Offset: "100000h", IMeanThisNode: true},
		"node.drift: clock-drift needs one":                    {Action: "clock-drift", IMeanThisNode: true},
		"node.drift: clock-drift needs one, ":                  {Action: "clock-jump", Offset: "1h", Drift: "1%", IMeanThisNode: true},
		`node.drift: "fast" must be a number with ppm or %`:    {Action: "clock-drift", Drift: "fast", IMeanThisNode: true},
		`node.drift: "NaN%" must be a number with ppm or %`:    {Action: "clock-drift", Drift: "NaN%", IMeanThisNode: true},
		`node.drift: "-0.1ppm" is out of range`:                {Action: "clock-drift", Drift: "-0.1ppm", IMeanThisNode: true},
		`node.drift: "10.1%" is out of range`:                  {Action: "clock-drift", Drift: "10.1%", IMeanThisNode: true},
		`node.amount: "80% of limit" is of a limit`:            {Action: "memory", Amount: "80% of limit", IMeanThisNode: true},
		`node.amount: "much" is no size`:                       {Action: "memory", Amount: "much", IMeanThisNode: true},
		`node.floor: "low" is no size`:                         {Action: "memory", Amount: "1GiB", Floor: "low", IMeanThisNode: true},
	} {
		if _, _, err := New(&v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Node{Node: node}}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v, want %q", node, err, want)
		}
	}
}

// TestNodeFalls: the journal knows before, nothing happens without a permit or after an end, and what did not happen is told.
func TestNodeFalls(t *testing.T) {
	for name, c := range map[string]struct {
		permitted, stopped bool
		falls              int
	}{"permitted": {true, false, 1}, "not permitted": {false, false, 0}, "stopped before": {true, true, 0}} {
		t.Run(name, func(t *testing.T) {
			journal, err := undo.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			pending := func() int {
				entries, err := undo.Read(journal.Dir())
				if err != nil {
					t.Fatal(err)
				}
				return len(entries)
			}
			falls := 0
			d := &down{
				node: Node{Action: ActionReboot}, over: make(chan struct{}), grace: time.Millisecond,
				permit: &permit{kernel: func() bool { return c.permitted }, until: time.Now().Add(time.Hour)},
			}
			d.fall = func() error {
				if falls++; pending() != 1 {
					t.Errorf("in the journal there are %d entries when it falls", pending())
				}
				return errors.New("still there")
			}
			if c.stopped {
				d.grace = time.Hour
			}
			if err := d.start(Env{Journal: journal}, "f"); err != nil {
				t.Fatal(err)
			}
			if !c.stopped {
				<-d.over
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if falls != c.falls || pending() != 0 {
				t.Errorf("it fell %d times, and the journal has %d entries", falls, pending())
			}
			if counted := d.Counters(); counted.Injected != 0 || counted.NotApplied != uint64(c.falls) {
				t.Errorf("counted %v", counted)
			}
			if err := d.Close(); err != nil {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
}
