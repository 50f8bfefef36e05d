package faults

import (
	"fmt"
	"strings"
)

// choice is one of several things of which exactly one must be given.
type choice struct {
	name  string
	given bool
}

func exactlyOne(choices []choice) error {
	var names, given []string
	for _, c := range choices {
		names = append(names, c.name)
		if c.given {
			given = append(given, c.name)
		}
	}
	switch len(given) {
	case 1:
		return nil
	case 0:
		return fmt.Errorf("%s: missing; give one of %s", names[0], strings.Join(names, ", "))
	default:
		return fmt.Errorf("%s: given together with %s; give exactly one of %s", given[1], given[0], strings.Join(names, ", "))
	}
}
