package main

import (
	"context"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// TestLossFlags: models are written with netem's names, with or without percent signs, with spaces or commas.
func TestLossFlags(t *testing.T) {
	num := proto.Float64
	for line, want := range map[string]*v1.Packet{
		"--loss=5":                                     {Loss: 5},
		"--loss=5 --loss-correlation=25":               {Loss: 5, LossCorrelation: 25},
		"--loss=5 --loss-burst=3":                      {Loss: 5, LossBurst: 3},
		"--loss-gemodel=p=1%":                          {LossGemodel: &v1.GilbertElliott{P: 1}},
		"--loss-gemodel=1-k=0,p=1 r=10,1-h=99%":        {LossGemodel: &v1.GilbertElliott{P: 1, R: num(10), OneMinusH: num(99), OneMinusK: num(0)}},
		"--loss-state=p13=1 p31=2 p32=3,p23=4% p14=.5": {LossState: &v1.FourState{P13: 1, P31: num(2), P32: num(3), P23: num(4), P14: num(0.5)}},
	} {
		spec := &v1.FaultSpec{}
		app := &cli.App{Flags: packetFlags(), Action: func(c *cli.Context) error { return packetKind(c, spec) }}
		if err := app.RunContext(context.Background(), splitFlags(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if !proto.Equal(spec.GetPacket(), want) {
			t.Errorf("%s: got %v, want %v", line, spec.GetPacket(), want)
		}
	}
}

// splitFlags splits a line before each flag.
func splitFlags(line string) []string {
	args := []string{"inject"}
	for _, part := range strings.Split(" "+line, " --")[1:] {
		args = append(args, "--"+part)
	}
	return args
}
