package main

import (
	"math"
	"testing"
)

func TestTheLeastDisturbedRunCounts(t *testing.T) {
	p := pairs{Bare: []float64{200, 300, 210}, With: []float64{460, 455, 700}}
	if got := p.difference(lowest); got != 255 {
		t.Errorf("difference of the lowest: got %v, want 255", got)
	}
	if got := p.ratio(highest); got != 700.0/300 {
		t.Errorf("ratio of the highest: got %v, want %v", got, 700.0/300)
	}
}

func TestNoiseIsBareAgainstBare(t *testing.T) {
	for _, c := range []struct {
		name       string
		bare, with []float64
		noise      float64
		noWorse    bool
	}{
		{"quiet and the same", []float64{100, 100, 120}, []float64{101, 130, 101}, 0, true},
		{"quiet and dearer", []float64{100, 100, 120}, []float64{110, 130, 111}, 0, false},
		{"quiet and cheaper", []float64{100, 100, 120}, []float64{60, 130, 111}, 0, true},
		{"noisy, so nobody can tell", []float64{125, 100, 150}, []float64{110, 130, 111}, 0.25, true},
	} {
		p := pairs{c.bare, c.with}
		if got := p.noise(lowest); got != c.noise {
			t.Errorf("%s: noise: got %v, want %v", c.name, got, c.noise)
		}
		if got := p.noWorse(lowest, 0.02); got != c.noWorse {
			t.Errorf("%s: no worse: got %v, want %v", c.name, got, c.noWorse)
		}
	}
	if p := (pairs{Bare: []float64{1}, With: []float64{2}}); !math.IsInf(p.noise(lowest), 1) {
		t.Error("one bare run says nothing about noise")
	}
}

func TestLowerRatesAreWorse(t *testing.T) {
	bare := []float64{100, 100, 90}
	if (pairs{bare, []float64{90, 80, 95}}).noWorse(highest, 0.02) {
		t.Error("a lower rate counts as no worse")
	}
	if !(pairs{bare, []float64{150, 80, 95}}).noWorse(highest, 0.02) {
		t.Error("a higher rate counts as worse")
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if values[0] != 5 {
		t.Error("the values were sorted in place")
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("no values have no quantile")
	}
}

func TestDelayGoal(t *testing.T) {
	for _, c := range []struct {
		took   float64 // us
		within bool
	}{{100, true}, {144, true}, {146, false}, {56, true}, {54, false}} {
		s := sleeping{Asked: 100e3, Took: []float64{c.took * 1e3}}
		if s.within() != c.within {
			t.Errorf("100 us that took %v us: within: got %v, want %v", c.took, s.within(), c.within)
		}
	}
}
