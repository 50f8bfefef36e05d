// Package elf32test makes 32-bit programs of x86, for which hosts need no compiler.
package elf32test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// base is where a program lies in memory, and headers how long what comes before its code is.
const base, headers = 0x10000, 52 + 32

// Write makes a program of machine code, such as int $0x80, in a directory of the test: an ELF header, one segment, and the code. It skips
// the test where there are no such programs.
func Write(tb testing.TB, name string, code []byte) string {
	tb.Helper()
	if runtime.GOARCH != "amd64" {
		tb.Skip("the 32-bit program is one of x86")
	}
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header32{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT), Entry: base + headers,
			Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
		},
		elf.Prog32{Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: headers + uint32(len(code)), Memsz: headers + uint32(len(code)), Flags: uint32(elf.PF_R | elf.PF_X), Align: 0x1000},
		code,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			tb.Fatal(err)
		}
	}
	program := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(program, b.Bytes(), 0o700); err != nil {
		tb.Fatal(err)
	}
	return program
}
