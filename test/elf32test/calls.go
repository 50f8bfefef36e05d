package elf32test

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// Call is a system call of a 32-bit program: its number in the table of such programs, and its arguments. A string becomes the address of its
// bytes, ended by a zero, and a []string that of a vector of them, as of writev.
type Call struct {
	Number    uint32
	Arguments []any // int, string, []string
}

// WriteCalls makes a program that makes the calls, one after the other, by int $0x80, and writes what they returned to its standard output,
// as Results reads it.
func WriteCalls(tb testing.TB, name string, calls ...Call) string {
	tb.Helper()
	a := assembler{base: base + headers}
	// The addresses of the data follow from how long the code is, which is the same whatever they are.
	a.program(tb, calls)
	a = assembler{base: base + headers, data: a.base + uint32(len(a.code))}
	a.program(tb, calls)
	return Write(tb, name, append(a.code, a.bytes...))
}

// Results reads what n calls returned: a result, or an errno below 0.
func Results(n int, output []byte) ([]int, error) {
	if len(output) != 4*n {
		return nil, fmt.Errorf("read the results of %d calls: got %d bytes", n, len(output))
	}
	results := make([]int, n)
	for i := range results { // the last one was pushed last, and lies first
		results[n-1-i] = int(int32(binary.LittleEndian.Uint32(output[4*i:])))
	}
	return results, nil
}

// An assembler lays out code, and after it what its arguments point to.
type assembler struct {
	base, data  uint32
	code, bytes []byte
}

// load is the first byte of mov $NUMBER to eax and to the registers of arguments, in their order.
const loadEAX, pushEAX = 0xb8, 0x50

var loadArgument = [...]byte{0xbb, 0xb9, 0xba, 0xbe, 0xbf, 0xbd} // ebx, ecx, edx, esi, edi, ebp

func (a *assembler) program(tb testing.TB, calls []Call) {
	for _, call := range calls {
		a.call(tb, call)
		a.code = append(a.code, pushEAX)
	}
	const write, exit = 4, 1
	a.code = append(a.code, 0x89, 0xe1) // mov %esp, %ecx
	a.load(loadEAX, write)
	a.load(loadArgument[0], 1)
	a.load(loadArgument[2], uint32(4*len(calls)))
	a.code = append(a.code, 0xcd, 0x80)
	a.call(tb, Call{exit, []any{0}})
}

func (a *assembler) call(tb testing.TB, call Call) {
	a.load(loadEAX, call.Number)
	for i, argument := range call.Arguments {
		a.load(loadArgument[i], a.value(tb, argument))
	}
	a.code = append(a.code, 0xcd, 0x80) // int $0x80
}

func (a *assembler) load(instruction byte, value uint32) {
	a.code = binary.LittleEndian.AppendUint32(append(a.code, instruction), value)
}

func (a *assembler) value(tb testing.TB, argument any) uint32 {
	switch v := argument.(type) {
	case int:
		return uint32(v)
	case string:
		return a.place(append([]byte(v), 0))
	case []string:
		var vector []byte
		for _, s := range v {
			vector = binary.LittleEndian.AppendUint32(vector, a.value(tb, s))
			vector = binary.LittleEndian.AppendUint32(vector, uint32(len(s)))
		}
		return a.place(vector)
	}
	tb.Fatalf("argument %v: a %T cannot be one", argument, argument)
	return 0
}

func (a *assembler) place(bytes []byte) uint32 {
	at := a.data + uint32(len(a.bytes))
	a.bytes = append(a.bytes, bytes...)
	return at
}
