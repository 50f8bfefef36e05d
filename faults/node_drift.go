package faults

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"faultd/undo"
)

const (
	mechanismAdjtimex = "adjtimex"
	// mostDrift is the kernel's, in millionths; from where the clocks are it may be less.
	mostDrift = 100000
)

// parseDrift reads "200ppm" or "-5%", and gives millionths.
func parseDrift(text string) (millionths float64, err error) {
	if text == "" {
		return 0, nil
	}
	number, unit := strings.CutSuffix(text, "ppm")
	if !unit {
		number, unit = strings.CutSuffix(text, "%")
	}
	millionths, err = strconv.ParseFloat(number, 64)
	if !unit || err != nil || math.IsNaN(millionths) {
		return 0, fmt.Errorf("drift: %q must be a number with ppm or %%, such as 200ppm or -5%%", text)
	}
	if strings.HasSuffix(text, "%") {
		millionths *= 1e4
	}
	if math.Abs(millionths) < 1 || math.Abs(millionths) > mostDrift {
		return 0, fmt.Errorf("drift: %q is out of range; it must be 1ppm to 10%%, faster or slower", text)
	}
	return millionths, nil
}

// driftMeans is what became of clocks that drifted.
var driftMeans = map[undo.Outcome]string{undo.Changed: "somebody else has set the clock or its rate since, and it was left as it is"}

// startClockDrift has the clocks run faster or slower. Those of faultd itself do, too: its lease, and the end of a fault, come by so much sooner or later.
func startClockDrift(f Node, env Env, common Common) (Handle, error) {
	if err := onlyClock(env); err != nil {
		return nil, err
	}
	action, err := undo.DriftClockAction(f.Drift)
	if errors.Is(err, undo.ErrDriftTooFar) {
		err = &ParameterError{"node.drift", fmt.Sprintf("from the rate that the clocks have, %.0fppm more is too much: %v", f.Drift, err)}
	}
	if err != nil {
		return nil, err
	}
	d := &nodeChange{node: f, mechanism: mechanismAdjtimex, means: driftMeans, holds: action.DriftClock.Holds, notes: clockKeeper()}
	return d.make(env, common, action, action.DriftClock.Set)
}
