package daemon

import (
	"fmt"

	"faultd/bpf"
	"faultd/undo"
)

// Residue lists what faultd may have left on this node: programs, maps, pins, filters, journalled changes that are not undone. The pinned
// kill switch is no residue.
func Residue(pinDir, stateDir string, daemonLives bool) ([]string, error) {
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
