package faults

import (
	"fmt"
	"time"
)

// ParseDuration reads a duration such as "150ms" of the field named, within least and most.
func ParseDuration(field, text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is no duration; write it as 150ms, 2s or 5m", field, text)
	}
	if d < least || d > most {
		return 0, fmt.Errorf("%s: %s is out of range; it must be in %s..%s", field, text, least, most)
	}
	return d, nil
}
