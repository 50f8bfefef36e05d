package burn

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// holdFiles has as many open files as the board wants, until it may not any more. Each is one of its own to the kernel, as only these count
// for the node's limit.
func (b *burner) holdFiles(words []string) error {
	most, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	if err := letHold(most); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return b.hold(most, func() (bool, error) {
		_, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err == nil, nil
	})
}
