// Package powercut is for tests that cut the power of a virtual machine: they run twice, and a disk outlives the first time.
package powercut

import (
	"fmt"
	"os"
	"testing"

	"faultd/test/vm/guest"
)

// Dir is where the disk is.
const Dir = guest.PersistDir

// Line asks the runner to cut the power (test/machines.sh).
const Line = "faultd test: cut the power"

// Var is set to 1 in machines whose power is cut at Line; others have such a disk, too.
const Var = "FAULTD_TEST_POWER_CUT"

// SecondBoot says which half of the test this is. Elsewhere than in such a machine the test is skipped.
func SecondBoot(t *testing.T) bool {
	t.Helper()
	if os.Getenv(Var) != "1" {
		t.Skip("needs a virtual machine whose power can be cut: make test-powercut")
	}
	return os.Getenv(guest.BootVar) == "2"
}

// Cut cuts the power. It never returns.
func Cut() {
	fmt.Println(Line)
	select {}
}
