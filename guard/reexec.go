package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is our own binary, also after an update has replaced the file.
const self = "/proc/self/exe"

// firstFile is the descriptor of the first inherited file.
const firstFile = 3

// child is our own binary, started again.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
	err  error
}

// reexec starts our own binary with a command. files become its descriptors from firstFile on.
func reexec(args []string, env []string, files []*os.File, cgroup *os.File) (*child, error) {
	cmd := exec.Command(self)
	cmd.Args = append([]string{os.Args[0]}, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	// A session of its own: a terminal's Ctrl-C and Ctrl-Z are for the daemon.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(cgroup.Fd())
	}
	err := cmd.Start()
	if cgroup != nil && errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("start ourselves as %s: this container's cgroup namespace lets no process be born outside of it, and faultd could not leave it; "+
			"give it the host's PID namespace and SYS_PTRACE: %w", args[0], err)
	}
	if err != nil {
		return nil, fmt.Errorf("start ourselves as %s: %w", args[0], err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends it and waits until it is gone.
func (c *child) kill() {
	// It may be gone already; then there is nothing to do.
	_ = c.cmd.Process.Kill()
	<-c.done
}

func (c *child) gone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}
