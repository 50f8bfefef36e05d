package bpf

import "errors"

// ErrNotSupported means that this kernel has no mechanism for what was asked; the wrapping text gives the reason and
// what would work.
var ErrNotSupported = errors.New("not supported by this kernel")

// ErrDecided means that a fault needs another mechanism on its calls than one that runs, and two cannot decide about a call.
var ErrDecided = errors.New("another fault decides about its calls")

// ErrFull means that a kernel map has no room for another rule.
var ErrFull = errors.New("too many rules")

// ErrKilled means that the kill switch is off.
var ErrKilled = errors.New("the kill switch is off: `faultd arm --reason ...` allows faults again")
