package faults

import (
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
)

// noDice refuses what needs matches, for faults that have none. The error is about the field and says why.
func noDice(spec *v1.FaultSpec, field, why string) error {
	for _, dice := range []struct {
		field string
		given bool
	}{{"percent", spec.Percent != nil && spec.GetPercent() != 100}, {"everyNth", spec.GetEveryNth() > 1},
		{"skipFirst", spec.GetSkipFirst() > 0}, {"maxHits", spec.GetMaxHits() > 0}, {"rate", spec.GetRate() > 0}, {"seed", spec.Seed != nil}} {
		if dice.given {
			return fmt.Errorf("%s: %s was given; %s", field, dice.field, why)
		}
	}
	return nil
}
