// Package guest is what the runner on the host and the init in the guest agree on: the plan that
// lies in the initramfs, and the frames that come back over the output port.
package guest

// PlanPath is where the plan lies in the initramfs, as JSON.
const PlanPath = "/plan.json"

// PersistDir is where the disk that outlives a reset is mounted, if the plan asks for one.
const PersistDir = "/persist"

// BootVar tells programs which boot of the run this is: 1, and after a reset 2.
const BootVar = "FAULTD_BOOT"

// KernelVar tells programs the runner's name of the kernel they run on; it is set in guests only.
const KernelVar = "FAULTD_VM_KERNEL"

// RequireFailingMemoryVar makes it a failure, instead of a reason to skip, if a kernel cannot fail allocations.
const RequireFailingMemoryVar = "FAULTD_REQUIRE_FAILING_MEMORY"

// A Plan is all that the init is told.
type Plan struct {
	Nonce    string    // marks our frames in the output, unknown to the programs
	Modules  []string  // kernel modules to load, in this order; absolute paths
	Required []string  // those of Modules whose failure to load is an error
	Persist  bool      // mount the disk at PersistDir
	Dir      string    // the programs' working directory; made if it is not there
	Env      []string  // the programs' environment, KEY=VALUE
	Programs []Program // run one after the other, whatever their exit codes
}

// A Program is one command to run.
type Program struct {
	Path string
	Args []string // without the program's name
}
