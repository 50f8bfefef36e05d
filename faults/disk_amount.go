package faults

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const mebibyte = 1 << 20

// units of an amount of space, longest suffix first.
func units() []struct {
	suffix string
	bytes  int64
} {
	return []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}
}

// parseAmount reads a number of inodes, or of bytes with a unit.
func parseAmount(field, text string, inodes bool) (int64, error) {
	if inodes {
		n, err := strconv.ParseUint(text, 10, 62)
		if err != nil {
			return 0, fmt.Errorf("%s: %q is no number of inodes; write it as 10000", field, text)
		}
		return int64(n), nil
	}
	for _, unit := range units() {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 62)
		if err != nil || int64(n) > math.MaxInt64/2/unit.bytes {
			break
		}
		return int64(n) * unit.bytes, nil
	}
	return 0, fmt.Errorf("%s: %q is no size; write a whole number with B, KiB, MiB, GiB or TiB, such as 512MiB", field, text)
}

// show writes an amount for people.
func (d Disk) show(n int64) string {
	switch {
	case d.Inodes:
		return fmt.Sprintf("%d inodes", n)
	case n < 10*mebibyte:
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mebibyte)
}

// usage is how much of a file system is used and free, in bytes or inodes, as a program without privileges sees it: what is
// kept for root (5 % of ext4, unless changed) is neither.
type usage struct{ used, free int64 }

// missing is how much must be taken until the level is reached; taken is what we have.
func (d Disk) missing(u usage, taken int64) int64 {
	switch {
	case d.Size != nil:
		return *d.Size - taken
	case d.Reserve != nil:
		return u.free - *d.Reserve
	}
	return int64(*d.PercentUsed/100*float64(u.used+u.free)) - u.used
}

// due is how much to take now: of what the level needs the part that the ramp has come to, and never what the floor keeps.
func (d Disk) due(u usage, taken, floor int64, part float64) int64 {
	n := d.missing(u, taken)
	if part < 1 {
		n = int64(part*float64(taken+n)) - taken
	}
	return max(0, min(n, u.free-floor))
}

// defaultFloor is kept free where nothing else is said.
func (d Disk) defaultFloor(u usage) int64 {
	if d.Inodes {
		return (u.used + u.free + 99) / 100
	}
	return 64 * mebibyte
}

func (d Disk) floor(u usage) int64 {
	if d.Floor != nil {
		return *d.Floor
	}
	return d.defaultFloor(u)
}

// reachable refuses a level that is reached already, or that the floor forbids.
func (d Disk) reachable(u usage) error {
	field := "percentUsed"
	switch {
	case d.Size != nil:
		field = "size"
	case d.Reserve != nil:
		field = "reserve"
	}
	missing, floor := d.missing(u, 0), d.floor(u)
	if missing <= 0 {
		return unfit(field, "there is nothing to take: %s are used and %s are free already", d.show(u.used), d.show(u.free))
	}
	if left := u.free - missing; left < floor {
		return unfit(field, "it would leave %s of the %s that are free, and the floor is %s; ask for less, or lower the floor",
			d.show(max(0, left)), d.show(u.free), d.show(floor))
	}
	return nil
}
