package main

import (
	"bytes"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A cpioEntry is one entry as a reader sees it.
type cpioEntry struct {
	name string
	mode uint64
	data string
}

// readCpio reads an archive the way the kernel does, up to its trailer.
func readCpio(t *testing.T, archive []byte) []cpioEntry {
	t.Helper()
	var entries []cpioEntry
	align := func(n int) int { return (n + 3) &^ 3 }
	for pos := 0; ; {
		header := string(archive[pos : pos+110])
		if !strings.HasPrefix(header, "070701") {
			t.Fatalf("no header at byte %d: %q", pos, header)
		}
		field := func(i int) int {
			v, err := strconv.ParseUint(header[6+8*i:14+8*i], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		size, nameSize := field(6), field(11)
		name := string(archive[pos+110 : pos+110+nameSize-1])
		pos = align(pos + 110 + nameSize)
		if name == "TRAILER!!!" {
			return entries
		}
		entries = append(entries, cpioEntry{name, uint64(field(1)), string(archive[pos : pos+size])})
		pos = align(pos + size)
	}
}

func TestCpioWriter(t *testing.T) {
	var b bytes.Buffer
	c := &cpioWriter{w: &b}
	c.dir("/etc", 0o755)
	c.file("/etc/x", 0o640, []byte("hello"))
	c.file("/su", fs.ModeSetuid|0o755, nil)
	c.symlink("/bin", "usr/bin")
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	want := []cpioEntry{
		{"etc", 0o040755, ""},
		{"etc/x", 0o100640, "hello"},
		{"su", 0o104755, ""},
		{"bin", 0o120777, "usr/bin"},
	}
	if got := readCpio(t, b.Bytes()); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
