package bpf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// program makes an ELF file without sections and symbols, of this code.
func program(class elf.Class, machine elf.Machine, code []byte) []byte {
	const headers = 64 + 56
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(header.Ident[:], "\x7fELF")
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(class), byte(elf.ELFDATA2LSB), 1
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: headers, Vaddr: 0x400000 + headers, Filesz: uint64(len(code)), Memsz: uint64(len(code))}
	var b bytes.Buffer
	for _, part := range []any{header, segment, code} {
		_ = binary.Write(&b, binary.LittleEndian, part) // into memory
	}
	return b.Bytes()
}

// nops come before code so that decoding finds its way.
var nops = bytes.Repeat([]byte{0x90}, resyncWindow)

func TestFindSyscallSites(t *testing.T) {
	for name, c := range map[string]struct {
		code         string
		sites        []int
		hidden       int
		legacy, back int // back: how far before the call the site lies
	}{
		"constant":               {"\xb8\x4a\x00\x00\x00\x0f\x05\xc3", []int{74}, 0, 0, 5},
		"zero":                   {"\x31\xc0\x0f\x05\xc3", []int{0}, 0, 0, 2},
		"only at run time":       {"\x48\x89\xdf\x0f\x05\xc3", []int{-1}, 0, 0, 3},
		"load of an argument":    {"\x8b\x7c\x24\x08\x0f\x05", []int{-1}, 0, 0, 4},
		"musl, cancellable":      {"\x4c\x8b\x4c\x24\x10\x4c\x89\x5c\x24\x08\x0f\x05\xc3", []int{-1}, 0, 0, 10},
		"store that stays":       {"\x4c\x8b\x4c\x24\x10\x4c\x89\x5c\x24\x08\x0f\x05\x90", nil, 1, 0, 0},
		"changes part of it":     {"\xb8\x4a\x00\x00\x00\x40\x80\xf6\x80\x0f\x05", nil, 1, 0, 0},
		"within a constant":      {"\xb8\x90\x0f\x05\xc3\x90", nil, 0, 0, 0},
		"int 0x80":               {"\xb8\x04\x00\x00\x00\xcd\x80", nil, 0, 1, 0},
		"sysenter":               {"\x0f\x34", nil, 0, 1, 0},
		"moves the stack":        {"\x48\x89\xc4\x0f\x05", nil, 1, 0, 0},
		"two":                    {"\xb8\x01\x00\x00\x00\x0f\x05\xb8\x4b\x00\x00\x00\x0f\x05", []int{1, 75}, 0, 0, 5},
		"cut off":                {"\xb8\x01\x00\x00\x00\x0f", nil, 0, 0, 0},
		"nothing that is a call": {"\xb8\x01\x00\x00\x00\xc3", nil, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := FindSyscallSites(bytes.NewReader(program(elf.ELFCLASS64, elf.EM_X86_64, append(bytes.Clone(nops), c.code...))))
			if err != nil {
				t.Fatal(err)
			}
			if len(found.Sites) != len(c.sites) || len(found.Hidden) != c.hidden || found.Legacy != c.legacy {
				t.Fatalf("found %+v", found)
			}
			for i, want := range c.sites {
				if got := found.Sites[i]; got.Number != want || int(got.step.length)+int(got.step.gap) != c.back && i == 0 {
					t.Errorf("site %d is %+v, want number %d, %d bytes before the call", i, got, want, c.back)
				}
			}
		})
	}
}

func TestFindSyscallSitesRefuses(t *testing.T) {
	call := append(bytes.Clone(nops), 0x0f, 0x05)
	if _, err := FindSyscallSites(bytes.NewReader([]byte("#!/bin/sh\n"))); err == nil {
		t.Error("it takes a script")
	}
	if _, err := FindSyscallSites(bytes.NewReader(program(elf.ELFCLASS64, elf.EM_AARCH64, call))); !errors.Is(err, ErrNotSupported) {
		t.Errorf("of arm64 it says %v", err)
	}
	x32 := elf.Header32{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1, Ehsize: 52, Shentsize: 40}
	copy(x32.Ident[:], "\x7fELF\x01\x01\x01")
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, x32) // into memory
	if _, err := FindSyscallSites(bytes.NewReader(b.Bytes())); !errors.Is(err, ErrNotSupported) {
		t.Errorf("of a 32-bit program it says %v", err)
	}
}

// TestOwnSyscallSites: this program makes nearly all its calls at one place.
func TestOwnSyscallSites(t *testing.T) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var known siteCache
	for range 2 {
		sites, err := known.of(f)
		if errors.Is(err, ErrNotSupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if fsync, _ := SyscallNumber("fsync"); len(sites.Of(fsync)) == 0 || sites.Legacy != 0 {
			t.Errorf("found %d places that may call fsync, %d of 32-bit programs", len(sites.Of(fsync)), sites.Legacy)
		}
	}
	if len(known.known) != 1 {
		t.Errorf("%d files are known", len(known.known))
	}
}

func FuzzFindSyscallSites(f *testing.F) {
	f.Add(program(elf.ELFCLASS64, elf.EM_X86_64, append(bytes.Clone(nops), "\xb8\x4a\x00\x00\x00\x0f\x05\xc3"...)))
	f.Fuzz(func(t *testing.T, file []byte) {
		found, err := FindSyscallSites(bytes.NewReader(file))
		if err != nil {
			return
		}
		for _, site := range found.Sites {
			end := site.Offset + uint64(site.step.length) + uint64(site.step.gap)
			if end+syscallLength > uint64(len(file)) || !bytes.Equal(file[end:end+syscallLength], []byte{0x0f, 0x05}) {
				t.Errorf("site %+v leads to no call", site)
			}
			if inst, err := x86asm.Decode(file[site.Offset:], 64); err != nil || inst.Len != int(site.step.length) {
				t.Errorf("site %+v is no instruction", site)
			}
		}
	})
}

func TestParseMapping(t *testing.T) {
	got, ok := parseMapping(7, "7f0000001000-7f0000002000 r-xp 00001000 fe:01 42                         /usr/lib/a b.so (deleted)")
	if want := (codeFile{fileID{0xfe00000001, 42}, "/usr/lib/a b.so (deleted)", "/proc/7/map_files/7f0000001000-7f0000002000"}); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	for _, line := range []string{
		"", "garbage", "7f00-7f01 r--p 00000000 fe:01 42 /data", "7f00-7f01 r-xp 00000000 00:00 0 [vdso]", "7f00 r-xp 0 fe:01 42 /x", "7f00-7f01 r-xp 0 fe 42 /x",
	} {
		if got, ok := parseMapping(7, line); ok {
			t.Errorf("%q gives %+v", line, got)
		}
	}
}
