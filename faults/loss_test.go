package faults

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

func TestLossIsRefused(t *testing.T) {
	num := proto.Float64
	for want, packet := range map[string]*v1.Packet{
		"packet.loss: 0 hurts nobody; give loss in (0,100]":                        {},
		"packet.loss: missing; give one of loss, lossGemodel, lossState":           {LossBurst: 3},
		"packet.loss: -1 is out of range; it must be in (0,100]":                   {Loss: -1},
		"packet.loss: 100.1 is out of range":                                       {Loss: 100.1},
		"packet.loss: NaN is out of range":                                         {Loss: math.NaN()},
		"packet.lossGemodel: given together with loss":                             {Loss: 5, LossGemodel: &v1.GilbertElliott{P: 1}},
		"packet.lossState: given together with lossGemodel":                        {LossState: &v1.FourState{P13: 1}, LossGemodel: &v1.GilbertElliott{P: 1}},
		"packet.lossCorrelation: 100 is out of range; it must be in [0,100)":       {Loss: 5, LossCorrelation: 100},
		"packet.lossCorrelation: 5 was given, and a loss of 100":                   {Loss: 100, LossCorrelation: 5},
		"packet.lossCorrelation: 5 was given, and goes with loss alone":            {Loss: 5, LossCorrelation: 5, LossBurst: 2},
		"packet.lossCorrelation: 7 was given, and goes with loss alone":            {LossState: &v1.FourState{P13: 1}, LossCorrelation: 7},
		"packet.lossBurst: 3 was given, and goes with loss alone":                  {LossGemodel: &v1.GilbertElliott{P: 1}, LossBurst: 3},
		"packet.perFlow: a lost flow loses all its packets":                        {Loss: 5, LossBurst: 2, PerFlow: true},
		"packet.lossGemodel.p: 0 is out of range; it must be in (0,100]":           {LossGemodel: &v1.GilbertElliott{}},
		"packet.lossGemodel.r: 0 is out of range":                                  {LossGemodel: &v1.GilbertElliott{P: 100}},
		"packet.lossGemodel.r: 101 is out of range":                                {LossGemodel: &v1.GilbertElliott{P: 1, R: num(101)}},
		"packet.lossGemodel.oneMinusH: -1 is out of range; it must be in [0,100]":  {LossGemodel: &v1.GilbertElliott{P: 1, OneMinusH: num(-1)}},
		"packet.lossGemodel.oneMinusK: NaN is out of range; it must be in [0,100]": {LossGemodel: &v1.GilbertElliott{P: 1, OneMinusK: num(math.NaN())}},
		"packet.lossGemodel.oneMinusH: it and oneMinusK are 0, so that no packet":  {LossGemodel: &v1.GilbertElliott{P: 1, OneMinusH: num(0)}},
		"packet.lossState.p13: 0 is out of range; it must be in (0,100]":           {LossState: &v1.FourState{P14: num(5)}},
		"packet.lossState.p31: 0 is out of range":                                  {LossState: &v1.FourState{P13: 1, P31: num(0)}},
		"packet.lossState.p23: 0 is out of range":                                  {LossState: &v1.FourState{P13: 1, P32: num(1), P31: num(9), P23: num(0)}},
		"packet.lossState.p14: 60 and p13, 50, are more than 100":                  {LossState: &v1.FourState{P13: 50, P14: num(60)}},
		"packet.lossState.p32: 60 and p31, 50, are more than 100":                  {LossState: &v1.FourState{P13: 5, P31: num(50), P32: num(60)}},
		"packet.lossState.p23: 40 was given, and without p32 state 2 is never":     {LossState: &v1.FourState{P13: 5, P23: num(40)}},
	} {
		_, fault, err := New(&v1.FaultSpec{Kind: &v1.FaultSpec_Packet{Packet: packet}})
		if err == nil || fault != nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v, want %s", packet, err, want)
		}
	}
}

// TestLossDefaultsAreThoseOfTc: what tc leaves out means the same here.
func TestLossDefaultsAreThoseOfTc(t *testing.T) {
	short, long := GilbertElliott{P: 20}, GilbertElliott{20, proto.Float64(80), proto.Float64(100), proto.Float64(0)}
	shortStates := FourState{P13: 20}
	longStates := FourState{20, proto.Float64(80), proto.Float64(0), nil, proto.Float64(0)}
	for what, pair := range map[string][2]Packet{
		"gemodel": {{Gemodel: &short}, {Gemodel: &long}}, "state": {{State: &shortStates}, {State: &longStates}},
	} {
		one, err := pair[0].rule(Common{})
		if err != nil {
			t.Fatal(err)
		}
		other, err := pair[1].rule(Common{})
		if err != nil {
			t.Fatal(err)
		}
		if *one.Chain != *other.Chain {
			t.Errorf("%s: %v, want %v", what, one.Chain, other.Chain)
		}
	}
}
