package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestIsSplat(t *testing.T) {
	bad := []string{
		"[    3.911] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI",
		"[    3.911] BUG: kernel NULL pointer dereference, address: 0000000000000010",
		"[    3.911] BUG: unable to handle page fault for address: ffffc90000a01000",
		"[    4.000] kernel BUG at mm/slub.c:4432!",
		"[   12.345] WARNING: CPU: 1 PID: 312 at kernel/trace/ftrace.c:2187 ftrace_bug+0x94/0x270",
		"[   12.345] WARNING: kernel/bpf/verifier.c:1234 at check_cond+0x1/0x2, CPU#0: x.test/99",
		"[    5.000] WARNING: possible circular locking dependency detected",
		"[    5.000] WARNING: possible recursive locking detected",
		"[    5.000] WARNING: inconsistent lock state",
		"[    5.000] WARNING: suspicious RCU usage",
		"[    5.000] WARNING: bad unlock balance detected!",
		"[    7.100] general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP",
		"[    7.200] Kernel panic - not syncing: Fatal exception in interrupt",
		"[   60.10] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"[   60.10] rcu: INFO: rcu_preempt self-detected stall on CPU",
		"[   60.10] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }",
		"[   88.00] watchdog: BUG: soft lockup - CPU#1 stuck for 52s! [x.test:101]",
		"[   88.00] watchdog: Watchdog detected hard LOCKUP on cpu 0",
		"[  242.00] INFO: task redis-server:88 blocked for more than 120 seconds.",
		"[  242.00] Kernel panic - not syncing: hung_task: blocked tasks",
		"[    9.00] refcount_t: underflow; use-after-free.",
		"[    9.00] BUG: scheduling while atomic: x/12/0x00000002",
		"[    9.00] UBSAN: array-index-out-of-bounds in kernel/x.c:1:2",
		"[    9.00] Unable to handle kernel paging request at virtual address 0000000000001000",
	}
	for _, line := range bad {
		if !isSplat(line) {
			t.Errorf("not noticed: %s", line)
		}
	}
	good := []string{
		"[    0.233394] Spectre V2 : Kernel not compiled with retpoline; no mitigation available!",
		"[    0.233394] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!",
		"[    0.616684] mtrr: your CPUs had inconsistent fixed MTRR settings",
		"[    1.352936] amd_pstate: the _CPC object is not present in SBIOS or ACPI disabled",
		"[    1.664767] Unstable clock detected, switching default tracing clock to \"global\"",
		"[    3.000] rcu: Hierarchical RCU implementation.",
		"[    3.000] TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:80. Sending cookies.",
		"[    3.000] EXT4-fs (nvme0n1): recovery complete",
		"[    3.000] FAULT_INJECTION: forcing a failure.",
		"[    3.000] x.test: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)",
		"[    3.000] x.test invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
		"[    3.000] DEBUG: nothing",
	}
	for _, line := range good {
		if isSplat(line) {
			t.Errorf("taken for a complaint: %s", line)
		}
	}
}

func TestConsoleScanner(t *testing.T) {
	var text strings.Builder
	for i := range 20 {
		fmt.Fprintf(&text, "[ 1.0] before %02d\r\n", i)
	}
	text.WriteString("[ 2.0] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x1\r\n[ 2.0] Call Trace:\r\n[ 2.0]  f+0x1\x1b\r\n")
	for i := range 60 {
		fmt.Fprintf(&text, "[ 3.0] after %02d\r\n", i)
	}
	text.WriteString("[ 4.0] Kernel panic - not syncing: x") // no line feed: it died

	for _, size := range []int{1, 7, 1 << 20} {
		var log strings.Builder
		c := &consoleScanner{log: &log}
		for rest := text.String(); rest != ""; {
			n := min(size, len(rest))
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if c.splats != 1 {
			t.Errorf("chunks of %d: %d complaints before the end, want 1", size, c.splats)
		}
		c.flush()
		if !c.failed() || c.splats != 2 {
			t.Errorf("chunks of %d: %d complaints, want 2", size, c.splats)
		}
		report := c.report()
		for _, want := range []string{"before 19\n", "before 15\n", "f+0x0/0x1\n", " f+0x1\n", "after 00\n", "Kernel panic - not syncing: x"} {
			if !strings.Contains(report, want) {
				t.Errorf("chunks of %d: report lacks %q:\n%s", size, want, report)
			}
		}
		for _, not := range []string{"before 14", "after 50", "\r", "\x1b"} {
			if strings.Contains(report, not) {
				t.Errorf("chunks of %d: report has %q", size, not)
			}
		}
		if got := log.String(); strings.TrimRight(got, "\n") != strings.TrimRight(text.String(), "\n") {
			t.Errorf("chunks of %d: the log is not what came in", size)
		}
	}
}

func TestConsoleTail(t *testing.T) {
	c := &consoleScanner{log: io.Discard}
	for i := range 100 {
		fmt.Fprintf(c, "line %d\n", i)
	}
	io.WriteString(c, "half")
	tail := c.tail()
	if c.failed() || !strings.Contains(tail, "line 99\nhalf\n") || strings.Contains(tail, "line 69\n") {
		t.Errorf("failed %v, tail:\n%s", c.failed(), tail)
	}
}

// A panic that a program asked for is a complaint, unless the machine may crash. Any other is.
func TestConsoleMayCrash(t *testing.T) {
	const asked, other = "[    3.9] Kernel panic - not syncing: sysrq triggered crash\n", "[    3.9] Kernel panic - not syncing: Fatal exception\n"
	for _, tt := range []struct {
		mayCrash     bool
		line         string
		wantComplain bool
	}{{false, asked, true}, {true, asked, false}, {true, other, true}} {
		c := &consoleScanner{log: io.Discard, mayCrash: tt.mayCrash}
		if _, err := c.Write([]byte(tt.line)); err != nil || c.failed() != tt.wantComplain {
			t.Errorf("%v %q: complained %v, %v", tt.mayCrash, tt.line, c.failed(), err)
		}
	}
}
