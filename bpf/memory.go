package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// MaxOrder is the highest order of pages that rules know; the kernel's own limit is 10 on most machines.
const MaxOrder = 63

func memoryQuestions(wanted Requests) (questions []question) {
	if wanted&RequestSlab != 0 {
		questions = append(questions, question{"should_failslab", "faultd_slab", "memory", loadMemory, memoryValues, "since 6.11 only with CONFIG_FAILSLAB"})
	}
	if wanted&RequestPage != 0 {
		questions = append(questions, question{"should_fail_alloc_page", "faultd_page", "memory", loadMemory, memoryValues, "since 6.11 only with CONFIG_FAIL_PAGE_ALLOC"})
	}
	return questions
}

// CanFailMemory says why allocations cannot be failed here, or nil. It leaves nothing attached. The error wraps ErrNotSupported.
func (k *Kernel) CanFailMemory(wanted Requests) error { return k.canAnswer(memoryQuestions(wanted)) }

// InstallMemory makes allocations of the kernel fail in calls of the target: r.Calls, r.Requests, and for pages the orders r.Low to
// r.High. The errno must be ENOMEM. The caller closes the rule.
func (k *Kernel) InstallMemory(t Target, r Rule) (*Installed, error) {
	return k.installAnswer(HookMemory, t, r, memoryQuestions(r.Requests))
}

func memoryValues(k *Kernel) (map[string]any, error) {
	flags, err := k.gfpFlags("DIRECT_RECLAIM", "IO", "FS", "NOFAIL")
	return map[string]any{"gfp_needed": flags["DIRECT_RECLAIM"] | flags["IO"] | flags["FS"], "gfp_nofail": flags["NOFAIL"]}, err
}

// gfpFlags finds the kernel's numbers of flags of allocations: among its types since 6.10, before that in the tracepoint that prints them.
func (k *Kernel) gfpFlags(names ...string) (map[string]uint32, error) {
	var bits []string
	for _, name := range names {
		bits = append(bits, "___GFP_"+name+"_BIT")
	}
	values, err := k.enumValues(bits...)
	if errors.Is(err, errNoValue) {
		return gfpFlagsTraced(names)
	}
	flags := map[string]uint32{}
	for _, name := range names {
		flags[name] = 1 << values["___GFP_"+name+"_BIT"]
	}
	return flags, err
}

func gfpFlagsTraced(names []string) (map[string]uint32, error) {
	format, err := readDetached("tracefs", "events/kmem/mm_page_alloc/format")
	if err != nil {
		return nil, fmt.Errorf("find the kernel's numbers of flags of allocations: %w", err)
	}
	return parseGFPFlags(format, names)
}

// parseGFPFlags reads `{( unsigned long)(( gfp_t)0x400u), "__GFP_DIRECT_RECLAIM"}`.
func parseGFPFlags(format string, names []string) (map[string]uint32, error) {
	flags := map[string]uint32{}
	for _, name := range names {
		m := regexp.MustCompile(`gfp_t\)\s*(0x[0-9a-f]+)u?\)+, "__GFP_` + name + `"`).FindStringSubmatch(format)
		if m == nil {
			return nil, fmt.Errorf("find the kernel's number of __GFP_%s: its tracepoints do not print it", name)
		}
		n, err := strconv.ParseUint(m[1], 0, 32)
		if err != nil || n == 0 || n&(n-1) != 0 {
			return nil, fmt.Errorf("find the kernel's number of __GFP_%s: %s is no single flag", name, m[1])
		}
		flags[name] = uint32(n)
	}
	return flags, nil
}

// AllCalls are the numbers of all calls that may be touched.
func AllCalls() (numbers []int) {
	for name, n := range syscallNumbers() {
		if n < maxSyscall && untouchable(name) == "" {
			numbers = append(numbers, n)
		}
	}
	return numbers
}
