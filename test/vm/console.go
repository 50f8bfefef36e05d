package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// splatPattern matches console lines that say the kernel is not well.
var splatPattern = regexp.MustCompile(strings.Join([]string{
	`\bOops\b`,
	`\bBUG: `,
	`\bkernel BUG at `,
	`\bWARNING: `,
	`\bgeneral protection fault`,
	`\bKernel panic`,
	`\bUnable to handle `,
	`\bint3: `,
	`\bUBSAN: `,
	`\bpossible (circular locking|recursive locking|irq lock inversion)`,
	`\binconsistent lock state`,
	`\bbad unlock balance`,
	`\bsuspicious RCU usage`,
	`\bINFO: rcu_\S+ .*\bdetected\b.*\bstalls?\b`,
	`\brcu: .*\bself-detected stall`,
	`\bsoft lockup\b`,
	`\bhard LOCKUP\b`,
	`\bhung task\b`,
	`\bINFO: task .* blocked for more than `,
	`\brefcount_t: `,
	`\bscheduling while atomic`,
	`\bsleeping function called from invalid context`,
}, "|"))

// harmlessPattern matches lines that splatPattern takes for bad news and that are none. Keep it
// short: each alternative says why.
var harmlessPattern = regexp.MustCompile(strings.Join([]string{
	// Not a bug but advice on mitigations, at boot and when a test allows unprivileged bpf.
	`\b(Spectre V2 |RETBleed): WARNING: `,
}, "|"))

// askedPattern matches the panic that a program asks for by /proc/sysrq-trigger.
var askedPattern = regexp.MustCompile(`\bKernel panic - not syncing: sysrq triggered crash`)

// Lines of console shown with a splat: some of what led to it, and a whole stack trace.
const (
	linesBefore = 5
	linesAfter  = 45
	linesTail   = 30 // shown when the guest dies with no splat
	maxWindows  = 3  // one bug tends to repeat itself
)

// A consoleScanner reads the kernel's console and remembers whether the kernel complained.
// It is safe for use by one writer and any number of readers.
type consoleScanner struct {
	log io.Writer // gets everything, as it comes
	// mayCrash: the kernel does not complain when a program has it panic.
	mayCrash bool

	mu      sync.Mutex
	partial []byte
	recent  []string   // the last lines, at most linesTail
	windows [][]string // a window of lines for each splat shown
	left    int        // how many lines the current window still takes
	splats  int
}

// Write takes console text as it comes, cut anywhere.
func (c *consoleScanner) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.partial = append(c.partial, p...)
	for {
		end := bytes.IndexByte(c.partial, '\n')
		if end < 0 {
			break
		}
		c.line(strings.Map(printable, string(c.partial[:end])))
		c.partial = append(c.partial[:0], c.partial[end+1:]...)
	}
	c.mu.Unlock()
	return c.log.Write(p)
}

// flush takes the last line, which a dying kernel leaves unended.
func (c *consoleScanner) flush() {
	if len(c.partial) > 0 {
		c.Write([]byte("\n"))
	}
}

// printable drops what a terminal would act on.
func printable(r rune) rune {
	if r < ' ' && r != '\t' {
		return -1
	}
	return r
}

func (c *consoleScanner) line(text string) {
	asked := c.mayCrash && askedPattern.MatchString(text)
	bad := isSplat(text) && !asked
	if bad {
		c.splats++
	}
	switch {
	case c.left > 0:
		last := len(c.windows) - 1
		c.windows[last] = append(c.windows[last], text)
		c.left--
	case bad && len(c.windows) < maxWindows:
		lead := c.recent[max(0, len(c.recent)-linesBefore):]
		c.windows = append(c.windows, append(append([]string{}, lead...), text))
		c.left = linesAfter
	}
	c.recent = append(c.recent, text)
	if len(c.recent) > linesTail {
		c.recent = c.recent[1:]
	}
}

func isSplat(line string) bool {
	return splatPattern.MatchString(line) && !harmlessPattern.MatchString(line)
}

// failed tells whether the kernel complained so far.
func (c *consoleScanner) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.splats > 0
}

// report shows the windows around the kernel's complaints.
func (c *consoleScanner) report() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "kernel complained in %d lines of its console\n", c.splats)
	for i, w := range c.windows {
		fmt.Fprintf(&b, "--- console, complaint %d ---\n%s\n", i+1, strings.Join(w, "\n"))
	}
	return b.String()
}

// tail shows the last lines of the console.
func (c *consoleScanner) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "--- console, last lines ---\n" + strings.Join(append(c.recent, string(c.partial)), "\n") + "\n"
}
