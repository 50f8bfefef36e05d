package main

import (
	"slices"
	"testing"
)

func TestParseBenchmark(t *testing.T) {
	const csv = `"test","rps","avg_latency_ms"
"GET","72568.94","0.412"
`
	if got, err := parseBenchmark(csv); err != nil || got != 72568.94 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", `"SET","1","2"`, `"GET"`, `"GET","-"`, `"GET","0"`} {
		if got, err := parseBenchmark(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestParseIperf(t *testing.T) {
	if got, err := parseIperf(`{"end": {"sum_sent": {"bits_per_second": 1}, "sum_received": {"bits_per_second": 81920}}}`); err != nil || got != 10 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"end": {"sum_received": {"bits_per_second": 0}}}`, `{"error": "unable to connect"}`} {
		if got, err := parseIperf(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestTurnsAlternate(t *testing.T) {
	var seen []string
	state := "bare"
	record := func() (float64, error) {
		seen = append(seen, state)
		return float64(len(seen)), nil
	}
	on := func() (func() error, error) {
		state = "with"
		return func() error { state = "bare"; return nil }, nil
	}
	found, err := turns(2, func() error { return nil }, on, record)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"bare", "with", "bare", "with"}; !slices.Equal(seen, want) {
		t.Errorf("got %v, want %v", seen, want)
	}
	if !slices.Equal(found[0].Bare, []float64{1, 3}) || !slices.Equal(found[0].With, []float64{2, 4}) {
		t.Errorf("got %+v", found[0])
	}
}

func TestTurnsOfSeveral(t *testing.T) {
	state := 0.0
	read := func() (float64, error) { return state, nil }
	on := func(value float64) hooking {
		return func() (func() error, error) {
			state = value
			return func() error { state = 0; return nil }, nil
		}
	}
	found, err := turnsOf(2, func() error { return nil }, []hooking{on(1), on(2)}, read, read)
	if err != nil {
		t.Fatal(err)
	}
	for i, of := range found {
		if len(of) != 2 {
			t.Fatalf("got %+v", of)
		}
		for _, p := range of {
			with := float64(i + 1)
			if !slices.Equal(p.Bare, []float64{0, 0}) || !slices.Equal(p.With, []float64{with, with}) {
				t.Errorf("number %d: got %+v", i, p)
			}
		}
	}
}

func TestSections(t *testing.T) {
	chosen, err := choose("kill,idle")
	if err != nil || len(chosen) != 2 || chosen[0].name != "kill" {
		t.Errorf("got %v, %v", chosen, err)
	}
	if _, err := choose("idle,speed"); err == nil {
		t.Error("an unknown section was accepted")
	}
}
