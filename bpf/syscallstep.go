package bpf

import (
	"math"

	"golang.org/x/arch/x86/x86asm"
)

// A step is an instruction that a program does in the processor's place: it brings a value into a register. So nothing has to
// run out of its place, which costs many times as much.
type step struct {
	length   uint8
	kind     uint8
	to       uint8 // registers as the processor numbers them: ax cx dx bx sp bp si di r8..r15
	from     uint8
	narrow   bool // 32 bits, the upper half becomes 0
	constant int32
	// gap is the length of an instruction between this one and the call, which runs by itself unless the call is not made.
	gap uint8
}

// What the value is (enum step_kind of syscall_uprobe.c).
const (
	stepConstant = 1 // the constant
	stepSum      = 2 // register + constant
	stepLoad     = 3 // what lies in memory at register + constant
	stepSigned   = 4 // the lower half of a register, with its sign
)

// Registers that are not general ones.
const (
	registerSP   = 4
	registerIP   = 16 // where the next instruction is
	registerNone = 255
)

// cookie is the form in which a program gets the step, with each site. The low byte of the place tells the program whether
// the step is still to be done: addresses have those of places in the file.
func (s SyscallSite) cookie() uint64 {
	t := s.step
	c := uint64(t.length&15) | uint64(t.kind&15)<<4 | uint64(t.gap&15)<<8 | uint64(t.to&15)<<12 | uint64(t.from&31)<<16 |
		(s.Offset&0xff)<<24 | uint64(uint32(t.constant))<<32
	if t.narrow {
		c |= 1 << 21
	}
	return c
}

// stepOf gives an instruction as a step, if it is one.
func stepOf(inst x86asm.Inst) (s step, ok bool) {
	to, narrow := register(inst.Args[0])
	if to == registerNone || to == registerSP || inst.Args[2] != nil {
		return step{}, false
	}
	s = step{length: uint8(inst.Len), to: to, narrow: narrow}
	switch inst.Op {
	case x86asm.XOR:
		// Of a register with itself.
		from, fromNarrow := register(inst.Args[1])
		s.kind = stepConstant
		return s, from == to && fromNarrow == narrow
	case x86asm.ADD, x86asm.SUB:
		constant, ok := inst.Args[1].(x86asm.Imm)
		if inst.Op == x86asm.SUB {
			constant = -constant
		}
		s.kind, s.from = stepSum, to
		return s, ok && s.setConstant(int64(constant))
	case x86asm.LEA:
		s.kind = stepSum
		return s, s.setMemory(inst.Args[1])
	case x86asm.MOVSXD:
		from, fromNarrow := register(inst.Args[1])
		s.kind, s.from = stepSigned, from
		return s, from != registerNone && fromNarrow && !narrow
	case x86asm.MOV:
		return s, s.setSource(inst.Args[1])
	}
	return step{}, false
}

// setSource is what is moved.
func (s *step) setSource(arg x86asm.Arg) bool {
	switch source := arg.(type) {
	case x86asm.Imm:
		s.kind = stepConstant
		return s.setConstant(int64(source))
	case x86asm.Mem:
		s.kind = stepLoad
		return s.setMemory(source)
	}
	from, narrow := register(arg)
	s.kind, s.from = stepSum, from
	return from != registerNone && narrow == s.narrow
}

func (s *step) setMemory(arg x86asm.Arg) bool {
	m, ok := arg.(x86asm.Mem)
	if !ok || m.Segment != 0 || m.Index != 0 || m.Scale > 1 {
		return false
	}
	from, narrow := register(m.Base)
	if m.Base == x86asm.RIP {
		from, narrow = registerIP, false
	}
	s.from = from
	return from != registerNone && !narrow && s.setConstant(m.Disp)
}

func (s *step) setConstant(constant int64) bool {
	if s.narrow && s.kind == stepConstant {
		constant = int64(int32(constant))
	}
	s.constant = int32(constant)
	return constant >= math.MinInt32 && constant <= math.MaxInt32
}

// register numbers a whole register, of 32 bits (narrow) or 64.
func register(arg x86asm.Arg) (number uint8, narrow bool) {
	r, ok := arg.(x86asm.Reg)
	switch {
	case ok && r >= x86asm.EAX && r <= x86asm.R15L:
		return uint8(r - x86asm.EAX), true
	case ok && r >= x86asm.RAX && r <= x86asm.R15:
		return uint8(r - x86asm.RAX), false
	}
	return registerNone, false
}
