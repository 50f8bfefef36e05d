package bpf

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"golang.org/x/arch/x86/x86asm"
)

// Bounds of the search, as files are whatever a target brings along.
const (
	maxText       = 1 << 30 // of executable code in a file
	maxSymbols    = 64 << 20
	maxSites      = 1 << 14
	maxFunction   = 64 << 10 // decoded before a site, at most
	scanChunk     = 1 << 20
	resyncWindow  = 80 // without a symbol: decoding begins so many bytes before the site, at several places
	resyncStarts  = 15 // the longest x86 instruction
	resyncAgree   = 12 // of the starts
	syscallLength = 2
)

// A SyscallSite is a place in a file where a call is made: the instruction that comes before a `syscall` instruction, and
// always runs right before it. Programs sit there and not on the `syscall` itself: a probed instruction runs elsewhere,
// step by step, and a system call does not survive that (threads and forked children crash there, signals wait until the call
// returns).
type SyscallSite struct {
	// Offset is the instruction's in the file.
	Offset uint64
	// Number is that of the call, or -1 if only the running program knows.
	Number int

	step step
}

// A HiddenSite is a `syscall` instruction that cannot be probed.
type HiddenSite struct {
	Offset uint64
	Number int // -1: unknown
	Why    string
}

// SyscallSites are the system calls of a file.
type SyscallSites struct {
	Sites  []SyscallSite
	Hidden []HiddenSite
	// Legacy counts int 0x80 and sysenter instructions, calls of 32-bit programs. They cannot be probed either.
	Legacy int
}

// Of gives the sites at which a call may be made.
func (s SyscallSites) Of(number int) (sites []SyscallSite) {
	for _, site := range s.Sites {
		if site.Number == number || site.Number < 0 {
			sites = append(sites, site)
		}
	}
	return sites
}

// HiddenOf counts the places where a call is made, for sure, that cannot be probed.
func (s SyscallSites) HiddenOf(number int) (n int) {
	for _, site := range s.Hidden {
		if site.Number == number {
			n++
		}
	}
	return n
}

// FindSyscallSites disassembles the executable code of an x86-64 ELF file around everything that looks like a `syscall`
// instruction. Of other files it says why not.
func FindSyscallSites(r io.ReaderAt) (SyscallSites, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return SyscallSites{}, fmt.Errorf("read the ELF header: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return SyscallSites{}, fmt.Errorf("%w: %s of %s, not x86-64", ErrNotSupported, f.Class, f.Machine)
	}
	s := siteSearch{functions: functionsOf(f)}
	for _, c := range codeOf(f) {
		if s.scanned += c.end - c.start; s.scanned > maxText {
			return s.found, fmt.Errorf("%w: it has more than %d bytes of code", ErrNotSupported, maxText)
		}
		if err := s.code(r, c); err != nil {
			return s.found, err
		}
	}
	return s.found, nil
}

// codeOf is where the file has code: its sections of instructions, as segments hold data too; or the segments, if it has no
// sections.
func codeOf(f *elf.File) (code []extent) {
	for _, section := range f.Sections {
		if section.Type == elf.SHT_PROGBITS && section.Flags&elf.SHF_EXECINSTR != 0 {
			code = append(code, extentOf(section.Offset, section.FileSize))
		}
	}
	if len(code) > 0 {
		return code
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			code = append(code, extentOf(p.Off, p.Filesz))
		}
	}
	return code
}

func extentOf(start, size uint64) extent {
	const most = 1 << 62
	return extent{min(start, most), min(start, most) + min(size, most)}
}

// extent is a part of a file.
type extent struct{ start, end uint64 }

// functionsOf are the functions of all symbols, as places in the file. A file without symbols has none.
func functionsOf(f *elf.File) (functions []extent) {
	for _, section := range f.Sections {
		if section.Type == elf.SHT_SYMTAB && section.Size > maxSymbols {
			return nil
		}
	}
	symbols, _ := f.Symbols() // there may be none
	dynamic, _ := f.DynamicSymbols()
	for _, symbol := range append(symbols, dynamic...) {
		if t := elf.ST_TYPE(symbol.Info); t != elf.STT_FUNC && t != elf.STT_GNU_IFUNC {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && symbol.Value >= p.Vaddr && symbol.Value-p.Vaddr < p.Filesz {
				start := symbol.Value - p.Vaddr + p.Off
				functions = append(functions, extent{start, start + min(symbol.Size, p.Filesz)})
			}
		}
	}
	slices.SortFunc(functions, func(a, b extent) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end))
	})
	return slices.CompactFunc(functions, func(a, b extent) bool { return a.start == b.start })
}

type siteSearch struct {
	functions []extent
	scanned   uint64
	found     SyscallSites
}

// enclosing is the function around a place.
func (s *siteSearch) enclosing(offset uint64) (extent, bool) {
	i := sort.Search(len(s.functions), func(i int) bool { return s.functions[i].start > offset }) - 1
	if i < 0 || offset >= s.functions[i].end {
		return extent{}, false
	}
	return s.functions[i], true
}

// code looks through a part, a chunk at a time.
func (s *siteSearch) code(r io.ReaderAt, c extent) error {
	chunk := make([]byte, min(scanChunk+1, c.end-c.start))
	for at := c.start; at < c.end; at += scanChunk {
		n, err := r.ReadAt(chunk[:min(scanChunk+1, c.end-at)], int64(at))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the code: %w", err)
		}
		if err := s.chunk(r, chunk[:n], at, c); err != nil {
			return err
		}
		if n < scanChunk {
			break
		}
	}
	return nil
}

// chunk verifies whatever looks like an instruction that makes calls. The last byte of a full chunk is the first of the next.
func (s *siteSearch) chunk(r io.ReaderAt, chunk []byte, at uint64, c extent) error {
	for i := 0; i+1 < len(chunk) && i < scanChunk; i++ {
		pair := chunk[i : i+2]
		kind := x86asm.Op(0)
		switch {
		case pair[0] == 0x0f && pair[1] == 0x05:
			kind = x86asm.SYSCALL
		case pair[0] == 0x0f && pair[1] == 0x34:
			kind = x86asm.SYSENTER
		case pair[0] == 0xcd && pair[1] == 0x80:
			kind = x86asm.INT
		default:
			continue
		}
		if len(s.found.Sites)+len(s.found.Hidden)+s.found.Legacy >= maxSites {
			return fmt.Errorf("%w: it has more than %d places that make calls", ErrNotSupported, maxSites)
		}
		if err := s.candidate(r, kind, at+uint64(i), c); err != nil {
			return err
		}
	}
	return nil
}

// candidate adds a place if it is what it looks like.
func (s *siteSearch) candidate(r io.ReaderAt, kind x86asm.Op, place uint64, c extent) error {
	around, whole := s.around(place, c)
	code := make([]byte, around.end-around.start)
	n, err := r.ReadAt(code, int64(around.start))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the code: %w", err)
	}
	if place+syscallLength > around.start+uint64(n) {
		return nil
	}
	line, ok := straightLine(code[:n], int(place-around.start), whole)
	switch {
	case !ok:
		return nil
	case kind != x86asm.SYSCALL:
		s.found.Legacy++
		return nil
	}
	number, step, why := analyse(line, code[int(place-around.start)+syscallLength:n], whole)
	if why != "" {
		s.found.Hidden = append(s.found.Hidden, HiddenSite{place, number, why})
		return nil
	}
	s.found.Sites = append(s.found.Sites, SyscallSite{place - uint64(step.length) - uint64(step.gap), number, step})
	return nil
}

// around is the code to decode for a place: whole, from the start of its function, or what comes right before it.
func (s *siteSearch) around(place uint64, c extent) (around extent, whole bool) {
	if f, known := s.enclosing(place); known && f.start >= c.start && place-f.start <= maxFunction {
		return extent{f.start, min(max(f.end, place+syscallLength), place+maxFunction, c.end)}, true
	}
	return extent{max(c.start, place-min(place, resyncWindow)), min(place+syscallLength+1, c.end)}, false
}

// instruction is one that was decoded, at its place in the code. With target, something jumps to it.
type instruction struct {
	x86asm.Inst
	at     int
	target bool
}

// decode gives the instructions from a place on, up to and without the one at or beyond the end. What it does not know it
// passes byte by byte; clean says that there was no such thing.
func decode(code []byte, from, end int) (list []instruction, clean bool) {
	clean = true
	for from < end {
		inst, err := x86asm.Decode(code[from:], 64)
		if err != nil || inst.Op == 0 {
			if bytes.HasPrefix(code[from:], []byte{0xf3, 0x0f, 0x1e, 0xfa}) { // endbr64
				from += 4
				continue
			}
			from, clean = from+1, false
			continue
		}
		if from+inst.Len > end {
			return list, false
		}
		list = append(list, instruction{Inst: inst, at: from})
		from += inst.Len
	}
	return list, clean && from == end
}

// straightLine are the instructions that lead to a place, the last one right before it; ok: the place really begins an
// instruction. It does if decoding from the function's start ends there, or if decoding from nearly anywhere before does.
func straightLine(code []byte, place int, fromFunction bool) (line []instruction, ok bool) {
	if fromFunction {
		line, clean := decode(code, 0, place)
		if clean {
			return mark(line, code, place), true
		}
	}
	agree := map[int]int{}
	lines := map[int][]instruction{}
	from := max(0, place-resyncWindow)
	for i := 0; i < resyncStarts && from+i < place; i++ {
		line, clean := decode(code, from+i, place)
		n := len(line)
		if n == 0 || line[n-1].at+line[n-1].Len != place {
			continue
		}
		agree[line[n-1].at]++
		if clean {
			lines[line[n-1].at] = line
		}
	}
	for at, n := range agree {
		if n >= resyncAgree && lines[at] != nil {
			return mark(lines[at], code, place), true
		}
	}
	return nil, false
}

// mark marks what is jumped to, within the code that there is. A jump to the place itself marks nothing: it is no part of
// the line.
func mark(line []instruction, code []byte, place int) []instruction {
	after, _ := decode(code, place, len(code))
	targets := map[int]bool{}
	for _, inst := range slices.Concat(line, after) {
		if rel, ok := inst.Args[0].(x86asm.Rel); ok {
			targets[inst.at+inst.Len+int(rel)] = true
		}
	}
	for i := range line {
		line[i].target = targets[line[i].at]
	}
	return line
}

// analyse finds out what the instruction before a call does, and the number of the call. Whole: the line begins with its
// function, so that all jumps are known. After is the code behind the call.
func analyse(line []instruction, after []byte, whole bool) (number int, s step, why string) {
	if len(line) == 0 {
		return -1, step{}, "nothing comes before it"
	}
	last := line[len(line)-1]
	number = callNumber(line, whole)
	s, ok := stepOf(last.Inst)
	if !ok && len(line) > 1 && !last.target && isDead(last.Inst, after) {
		s, ok = stepOf(line[len(line)-2].Inst)
		s.gap = uint8(last.Len)
	}
	if !ok {
		return number, step{}, fmt.Sprintf("%s comes before it, which programs cannot do themselves", last.Op)
	}
	return number, s, ""
}

// isDead says whether nobody needs an instruction if the call after it is not made: it stores in the stack above its
// function, which belongs to the function, and that returns right after the call. Musl makes its calls that way
// (__syscall_cp_asm).
func isDead(inst x86asm.Inst, after []byte) bool {
	m, ok := inst.Args[0].(x86asm.Mem)
	const ret = 0xc3
	return ok && inst.Op == x86asm.MOV && m.Base == x86asm.RSP && m.Index == 0 && m.Segment == 0 && m.Disp >= 8 &&
		len(after) > 0 && after[0] == ret
}

// callNumber follows the line backwards to the constant in AX; -1: there is none.
func callNumber(line []instruction, whole bool) int {
	for i, inst := range slices.Backward(line) {
		if value, ok := constantInAX(inst.Inst); ok {
			return value
		}
		// A jump may come in here with something else in AX.
		if inst.target || i < len(line)-1 && !whole || !leavesAX(inst.Inst) {
			return -1
		}
	}
	return -1
}

func constantInAX(inst x86asm.Inst) (value int, ok bool) {
	s, ok := stepOf(inst)
	if !ok || s.to != 0 || s.kind != stepConstant {
		return 0, false
	}
	return int(s.constant), s.constant >= 0
}

// leavesAX is sure that an instruction leaves AX alone and goes on with the next one.
func leavesAX(inst x86asm.Inst) bool {
	switch inst.Op {
	case x86asm.NOP, x86asm.TEST, x86asm.CMP, x86asm.PUSH:
		return true
	case x86asm.MOV, x86asm.LEA, x86asm.XOR, x86asm.AND, x86asm.OR, x86asm.ADD, x86asm.SUB, x86asm.MOVSXD, x86asm.MOVZX, x86asm.SHL, x86asm.SHR, x86asm.POP:
	default:
		return false
	}
	switch to := inst.Args[0].(type) {
	case x86asm.Reg:
		return to != x86asm.AL && to != x86asm.AH && to != x86asm.AX && to != x86asm.EAX && to != x86asm.RAX
	case x86asm.Mem:
		return true
	}
	return false
}
