package bpf

// Requests is a set of what is asked of a block device, or of the kernel's allocators (enum request).
type Requests uint32

// The requests.
const (
	RequestRead     Requests = 1
	RequestWrite    Requests = 2
	RequestMetadata Requests = 4  // also metadata and journals of file systems
	RequestSwap     Requests = 8  // also swapping
	RequestFlush    Requests = 16 // also requests without data, which empty the disk's cache
	RequestSlab     Requests = 32
	RequestPage     Requests = 64
)
