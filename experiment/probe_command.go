package experiment

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// commandProbe runs a program, with all its children in a group that ends with the try.
type commandProbe struct {
	argv []string
	good int
}

func (d *document) commandProbe(field string, m *v1.CommandProbe) check {
	if m.GetArgv()[0] == "" {
		d.wrong(field+".argv[0]", "this is the program and cannot be empty")
	}
	return commandProbe{m.GetArgv(), int(m.GetExitCode())}
}

// afterKill is how long the output of a killed program may stay open.
const afterKill = 500 * time.Millisecond

func (p commandProbe) ask(ctx context.Context, _ Counters) (string, error) {
	var out, errOut capped
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// Ctrl-C is for us; what the program has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterKill
	err := cmd.Run()
	value := strings.TrimSpace(out.String())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return value, fmt.Errorf("run %s: %w", p.argv[0], err)
	}
	if code := cmd.ProcessState.ExitCode(); code != p.good {
		said, _, _ := strings.Cut(strings.TrimSpace(errOut.String()), "\n")
		return value, fmt.Errorf("%s, not exit status %d%s", cmd.ProcessState, p.good, after(": ", said))
	}
	return value, nil
}

// after puts something before a text, unless it is empty.
func after(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// capped keeps the first maxValue bytes of what is written, and swallows the rest.
type capped struct{ strings.Builder }

// Write implements io.Writer.
func (c *capped) Write(p []byte) (int, error) {
	if room := maxValue - c.Len(); room > 0 {
		c.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
