package experiment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// pressureProbe reads how much of the last 10 s was lost to waiting for a resource, in percent.
type pressureProbe struct{ asked *v1.PressureProbe }

func (p pressureProbe) ask(context.Context, Counters) (string, error) {
	path := filepath.Join("/proc/pressure", p.asked.GetResource())
	if dir := p.asked.GetCgroup(); dir != "" {
		path = filepath.Join(dir, p.asked.GetResource()+".pressure")
	}
	stall := p.asked.GetStall()
	if stall == "" {
		stall = "some"
	}
	return readPressure(path, stall)
}

// readPressure gives the percentage of the last 10 s.
func readPressure(path, stall string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the pressure: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, stall+" avg10="); ok {
			value, _, _ := strings.Cut(rest, " ")
			return value, nil
		}
	}
	return "", fmt.Errorf("read the pressure: %s has no %q", path, stall)
}
