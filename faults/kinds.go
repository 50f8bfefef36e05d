package faults

import (
	"fmt"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// Kind is a row of the table of faults.
type Kind struct {
	// Name as in the API and on the command line.
	Name string
	// Summary is one line for help texts and the docs.
	Summary string
	// Parameters of this kind alone.
	Parameters []Parameter
	// Calls: its harm is done to calls of the target, in the caller; so the dice may be thrown once for a thread or process.
	Calls bool
	// New makes the fault from what was asked for, not validated yet. Nil: the spec is of another kind.
	New func(*v1.FaultSpec) (Fault, error)
}

// Parameter describes one field of a kind.
type Parameter struct{ Name, Type, Help string }

// Kinds lists every fault faultd knows. To add one, write its file and add its line.
func Kinds() []Kind {
	return []Kind{
		{"backlog", "take the places in a listener's queue, until nobody is let in", backlogParameters(), false, newBacklog},
		{"block", "fail reads and writes of one block device, under its file system", blockParameters(), false, newBlock},
		{"connect", "fail what is done to sockets, or reset connections", connectParameters(), true, newConnect},
		{"cpu", "squeeze the processor time, or burn some", cpuParameters(), false, newCPU},
		{"disk", "fill a file system, or use up its inodes", diskParameters(), false, newDisk},
		{"dns", "answer queries in the server's place, or late", dnsParameters(), false, newDNS},
		{"fds", "hold files open, until the node may have no more", fdsParameters(), false, newFDs},
		{"file", "fail, delay or pretend what is done to files, by path", fileParameters(), true, newFile},
		{"http", "answer requests in the server's place, late or changed", httpParameters(), false, newHTTP},
		{"io", "squeeze reads from and writes to a disk, or keep it busy", ioParameters(), false, newIO},
		{"kernel", "fail allocations of memory that the kernel makes in system calls", kernelMemoryParameters(), true, newKernelMemory},
		{"memory", "squeeze the memory, or take some", memoryParameters(), false, newMemory},
		{KindNode, "reboot, crash, hang or starve the whole node, or stop a service of it", nodeParameters(), false, newNode},
		{"packet", "lose, delay or damage packets, silently as a wire does", packetParameters(), false, newPacket},
		{"partition", "cut the target from peers, or from all but some", partitionParameters(), false, newPartition},
		{"pids", "squeeze the number of threads and processes, or use some up", pidsParameters(), false, newPids},
		{"ports", "take local ports, until new connections to a peer find none", portsParameters(), false, newPorts},
		{"process", "signal, kill or pause processes", processParameters(), false, newProcess},
		{"syscall", "delay system calls, fail them, pretend them, or cut them short", syscallParameters(), true, newSyscall},
	}
}

// New finds the kind of a spec and makes and validates the fault.
func New(spec *v1.FaultSpec) (Kind, Fault, error) {
	var names []string
	for _, kind := range Kinds() {
		names = append(names, kind.Name)
		fault, err := kind.New(spec)
		if err != nil {
			return kind, nil, fmt.Errorf("%s.%w", kind.Name, err)
		}
		if fault == nil {
			continue
		}
		if err := fault.Validate(); err != nil {
			return kind, nil, fmt.Errorf("%s.%w", kind.Name, err)
		}
		return kind, fault, nil
	}
	return Kind{}, nil, fmt.Errorf("kind: none given; it must be one of %s", strings.Join(names, ", "))
}
