package main

// An arch is what the machines of one architecture differ in.
type arch struct {
	name    string // as Go and Debian call it
	qemu    string // the program
	install string // Debian's package of it
	machine string
	cpu     string
	console string // the kernel's name of the first port
}

var amd64 = arch{name: "amd64", qemu: "qemu-system-x86_64", install: "qemu-system-x86", machine: "q35", cpu: "max", console: "ttyS0"}

// arm64's pointers are signed by a hash that emulates quickly.
var arm64 = arch{name: "arm64", qemu: "qemu-system-aarch64", install: "qemu-system-arm", machine: "virt", cpu: "max,pauth-impdef=on", console: "ttyAMA0"}
