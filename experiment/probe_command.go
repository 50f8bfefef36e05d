package experiment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// commandProbe runs a program, with all its children in a group that ends with the try.
type commandProbe struct {
	argv []string
	good int
	// name is the user's; empty: ours. Who that is here is looked up when the probe is made ready.
	name string
	user *syscall.Credential
	env  []string
}

func (d *document) commandProbe(field string, m *v1.CommandProbe) check {
	if m.GetArgv()[0] == "" {
		d.wrong(field+".argv[0]", "this is the program and cannot be empty")
	}
	return &commandProbe{argv: m.GetArgv(), good: int(m.GetExitCode()), name: m.GetUser()}
}

// ready looks the user up.
func (p *commandProbe) ready() error {
	if p.name == "" {
		return nil
	}
	who, err := user.Lookup(p.name)
	if errors.As(err, new(user.UnknownUserError)) {
		who, err = user.LookupId(p.name)
	}
	if err != nil {
		return fmt.Errorf("command.user: %q: %w", p.name, err)
	}
	var groups []uint32
	listed, err := who.GroupIds()
	for _, id := range append([]string{who.Uid, who.Gid}, listed...) {
		number, parseErr := strconv.ParseUint(id, 10, 32)
		groups, err = append(groups, uint32(number)), errors.Join(err, parseErr)
	}
	if err != nil {
		return fmt.Errorf("command.user: look up the groups of %q: %w", p.name, err)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("command.user: only root may run programs as %q", p.name)
	}
	p.user = &syscall.Credential{Uid: groups[0], Gid: groups[1], Groups: groups[2:]}
	p.env = append(os.Environ(), "USER="+who.Username, "LOGNAME="+who.Username, "HOME="+who.HomeDir)
	return nil
}

// afterKill is how long the output of a killed program may stay open.
const afterKill = 500 * time.Millisecond

func (p *commandProbe) ask(ctx context.Context, _ Counters) (string, error) {
	var out, errOut capped
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errOut, p.env
	// Ctrl-C is for us; what the program has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.user}
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
