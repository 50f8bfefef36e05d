package daemon

import (
	"fmt"
	"time"

	"faultd/bpf"
	"faultd/undo"
)

// Residue lists what faultd may have left on this node: programs, maps, pins, filters, journalled changes that are not undone. The pinned
// kill switch is no residue. The kernel frees programs and maps a grace period after their last user, so what is found is
// looked at again for settleTime before it counts.
func Residue(pinDir, stateDir string, daemonLives bool) ([]string, error) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(settleTime / 50) {
		found, err := residueNow(pinDir, stateDir, daemonLives)
		if err != nil || len(found) == 0 || time.Now().After(deadline) {
			return found, err
		}
	}
}

const settleTime = 5 * time.Second

func residueNow(pinDir, stateDir string, daemonLives bool) ([]string, error) {
	found, err := bpf.Residue(pinDir, daemonLives)
	if err != nil {
		return nil, err
	}
	pending, err := undo.Read(stateDir)
	for _, e := range pending {
		found = append(found, fmt.Sprintf("journal entry %s of fault %s", e.ID, e.Fault))
	}
	return found, err
}
