package bpf

import "math"

// blockQuestion is asked before each request to a block device.
func blockQuestion() question {
	return question{
		function: "should_fail_bio", program: "faultd_block", object: "block", load: loadBlock, values: blockValues,
		option: "Linux 4.16 or newer has it, unless its compiler has put it into its only caller",
	}
}

func blockValues(k *Kernel) (map[string]any, error) {
	values, err := k.enumValues("BIO_REMAPPED")
	return map[string]any{"bio_remapped": uint32(values["BIO_REMAPPED"])}, err
}

// AllSectors is the last sector that there may be.
const AllSectors = math.MaxUint64

// CanFailBlock says why requests to block devices cannot be failed here, or nil. It leaves nothing attached. The error wraps
// ErrNotSupported.
func (k *Kernel) CanFailBlock() error { return k.canAnswer([]question{blockQuestion()}) }

// InstallBlock makes requests of the target to a device fail: r.Device, r.Requests, and the sectors r.Low to r.High. Whatever
// the errno, the kernel makes EIO of it. The caller closes the rule.
func (k *Kernel) InstallBlock(t Target, r Rule) (*Installed, error) {
	return k.installAnswer(HookBlock, t, r, []question{blockQuestion()})
}
