package experiment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// nodePressure is a node in trouble.
type nodePressure struct {
	interval
	proc  string // "/proc"
	limit *v1.NodePressure
}

func (n nodePressure) look(context.Context, bool) string {
	for _, resource := range []struct {
		name string
		most float64
	}{{"cpu", n.limit.GetCpu()}, {"memory", n.limit.GetMemory()}, {"io", n.limit.GetIo()}} {
		if why := n.pressure(resource.name, resource.most); why != "" {
			return why
		}
	}
	if why := n.freeMemory(); why != "" {
		return why
	}
	return n.load()
}

func (n nodePressure) pressure(resource string, most float64) string {
	if most == 0 {
		return ""
	}
	text, err := readPressure(filepath.Join(n.proc, "pressure", resource), "some")
	if err != nil {
		return err.Error()
	}
	now, err := strconv.ParseFloat(text, 64)
	if err != nil || now > most {
		return fmt.Sprintf("the pressure on %s of the node is %s %%, and %v %% is the limit", resource, text, most)
	}
	return ""
}

func (n nodePressure) freeMemory() string {
	least := n.limit.GetFreeMemory()
	if least == 0 {
		return ""
	}
	text, err := os.ReadFile(filepath.Join(n.proc, "meminfo"))
	if err != nil {
		return fmt.Sprintf("read the memory of the node: %v", err)
	}
	kibibytes := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kibibytes[name], _ = strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64) // 0 is never enough
	}
	if free := 100 * kibibytes["MemAvailable"] / max(kibibytes["MemTotal"], 1); free < least {
		return fmt.Sprintf("%.3g %% of the node's memory are available, and %v %% must be", free, least)
	}
	return ""
}

func (n nodePressure) load() string {
	most := n.limit.GetLoad()
	if most == 0 {
		return ""
	}
	text, err := os.ReadFile(filepath.Join(n.proc, "loadavg"))
	if err != nil {
		return fmt.Sprintf("read the load of the node: %v", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil || load/float64(runtime.NumCPU()) > most {
		return fmt.Sprintf("the load of the node is %s with %d processors, and %v for each is the limit", first, runtime.NumCPU(), most)
	}
	return ""
}
