package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine says where the numbers come from.
type machine struct {
	Kernel   string `json:"kernel"`
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	Emulated bool   `json:"emulated"`
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), CPU: runtime.GOARCH}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	// Only some architectures have the line.
	text, _ := os.ReadFile("/proc/cpuinfo")
	if found := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(text); found != nil {
		m.CPU = string(found[1])
	}
	m.Emulated = strings.Contains(m.CPU, "TCG")
	return m
}

func (m machine) String() string {
	s := fmt.Sprintf("Linux %s, %d CPUs (%s)", m.Kernel, m.CPUs, m.CPU)
	if m.Emulated {
		s += "; emulated: times are not those of a real machine, ratios are what they are"
	}
	return s
}
