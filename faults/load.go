package faults

import (
	"fmt"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Places of a burner.
const (
	placeInside = "inside"
	placeBeside = "beside"
)

func placeParameter() Parameter {
	return Parameter{"place", "inside|beside", "where the load is: inside the target, on its account and within its limits, or beside it, as a neighbour; empty: inside"}
}

func checkPlace(place string) error {
	switch place {
	case "", placeInside, placeBeside:
		return nil
	}
	return fmt.Errorf("place: %q must be inside or beside", place)
}

// noDiceOfLoad is noDice for the kinds that are a limit or a load.
func noDiceOfLoad(spec *v1.FaultSpec, load string) error {
	if load != "" {
		return noDice(spec, "load", "a load has nothing to choose from, only a height")
	}
	return noDice(spec, "limit", "a limit holds for all")
}

// needsLoad refuses the fields that only have a meaning with another one.
func needsLoad(field string, given []choice) error {
	for _, c := range given {
		if c.given {
			return fmt.Errorf("%s: it was given without %s", c.name, field)
		}
	}
	return nil
}

// parseRamp refuses one that is longer than the fault.
func parseRamp(text, duration string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	ramp, err := ParseDuration("ramp", text, 0, maxRamp)
	if err != nil {
		return 0, err
	}
	if lasts, err := time.ParseDuration(duration); err == nil && ramp > lasts {
		return 0, fmt.Errorf("ramp: %s is longer than the fault lasts, %s", ramp, lasts)
	}
	return ramp, nil
}
