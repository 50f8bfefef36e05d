package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// exhausted puts before an error that came of too little of something what that is, and how there is more of it. Other errors stay as they are.
func exhausted(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("faultd may open too few files%s: give it more (LimitNOFILE= of its unit, ulimit -n before faultd serve) and start it again, or stop faults: %w", mayOpen(), err)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("the node has no open file left: raise the sysctl fs.file-max, or stop what holds them: %w", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("memory is short, that of the node or of faultd's cgroup (MemoryMax= of its unit): %w", err)
	}
	return err
}

// mayOpen tells the limit: Go raised the soft one to the hard one when the process began.
func mayOpen() string {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return ""
	}
	return fmt.Sprintf(", %d at once", limit.Cur)
}
