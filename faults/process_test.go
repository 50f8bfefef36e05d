package faults

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

func processSpec(p *v1.Process) *v1.FaultSpec {
	return &v1.FaultSpec{Duration: "1m", Kind: &v1.FaultSpec_Process{Process: p}}
}

func TestProcessRefusals(t *testing.T) {
	for want, p := range map[string]*v1.Process{
		"process.signal: exactly one":                            {},
		"not 2":                                                  {Signal: "SIGTERM", Kill: true},
		"not 3":                                                  {Signal: "SIGTERM", Kill: true, Pause: true},
		`process.signal: "TERM" is unknown`:                      {Signal: "TERM"},
		`process.signal: "SIGNONE" is unknown`:                   {Signal: "SIGNONE"},
		"process.signal: SIGSTOP would leave":                    {Signal: "SIGSTOP"},
		"process.signal: SIGTSTP would leave":                    {Signal: "SIGTSTP"},
		"process.signal: missing; executables":                   {Kill: true, Executables: []string{"/bin/*"}},
		"count, starts and init choose":                          {Pause: true, Count: 1},
		"process.signal: missing; executables, commandLine, pid": {Kill: true, Pids: []uint32{7}},
		"process.pids: 7 was given with starts":                  {Signal: "SIGKILL", Starts: true, Pids: []uint32{7}},
		"process.executables: glob \"bin\"":                      {Signal: "SIGTERM", Executables: []string{"bin"}},
		`process.commandLine: "(" is no regular`:                 {Signal: "SIGTERM", CommandLine: "("},
		`process.every: "often" is no duration`:                  {Signal: "SIGTERM", Every: "often"},
		"process.every: 1ms is out of range":                     {Signal: "SIGTERM", Every: "1ms"},
		"process.every: 1s was given with pause":                 {Pause: true, Every: "1s"},
		"process.every: 1s was given with starts, which is whe":  {Signal: "SIGKILL", Every: "1s", Starts: true},
	} {
		if _, _, err := New(processSpec(p)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", p, err, want)
		}
	}
}

func TestProcessDice(t *testing.T) {
	for _, p := range []*v1.Process{{Kill: true}, {Pause: true}} {
		spec := processSpec(p)
		if _, _, err := New(spec); err != nil {
			t.Error(err)
		}
		spec.MaxHits = 1
		if _, _, err := New(spec); err == nil || !strings.Contains(err.Error(), "maxHits was given; kill and pause are for all") {
			t.Errorf("%v: %v", p, err)
		}
	}
	spec := processSpec(&v1.Process{Signal: "SIGHUP"})
	spec.Percent, spec.MaxHits = proto.Float64(10), 3
	if _, _, err := New(spec); err != nil {
		t.Error(err)
	}
}
