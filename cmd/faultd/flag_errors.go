package main

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/urfave/cli/v2"
)

// unreadable is how the flag package says that it cannot read a flag's value; what follows is in the words of strconv.
var unreadable = regexp.MustCompile(`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-([a-z0-9-]+): `)

// allowedValue gives, in the place of such an error, one that says what the value must be. Other errors stay.
func allowedValue(flags []cli.Flag, err error) error {
	found := unreadable.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), found[2]) })
	if i < 0 {
		return err
	}
	if must := readable(flags[i]); must != "" {
		return fmt.Errorf("--%s: %s must be %s", found[2], found[1], must)
	}
	return err
}

// readable says what can be read as the value of a flag; "" of a flag that takes every text.
func readable(f cli.Flag) string {
	switch f.(type) {
	case *cli.UintFlag, *cli.Uint64Flag, *cli.UintSliceFlag, *cli.Uint64SliceFlag:
		return "a whole number of 0 or more"
	case *cli.IntFlag:
		return "a whole number"
	case *cli.Float64Flag:
		return "a number"
	case *cli.DurationFlag:
		return "a duration, such as 30s or 5m"
	case *cli.BoolFlag:
		return "true or false"
	}
	return ""
}
