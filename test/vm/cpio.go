package main

import (
	"fmt"
	"io"
	"io/fs"
	"path"
)

// A cpioWriter writes an archive in the "newc" format, the one that kernels unpack as initramfs.
// Parents must be written before what they hold; the caller makes sure that each name comes once.
type cpioWriter struct {
	w     io.Writer
	inode uint32
	err   error
}

// File type bits of a cpio mode, from cpio(5).
const (
	cpioDir     = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
)

func (c *cpioWriter) dir(name string, perm fs.FileMode) {
	c.entry(name, cpioDir|unixPerm(perm), nil)
}

func (c *cpioWriter) file(name string, perm fs.FileMode, data []byte) {
	c.entry(name, cpioFile|unixPerm(perm), data)
}

func (c *cpioWriter) symlink(name, target string) {
	c.entry(name, cpioSymlink|0o777, []byte(target))
}

// close ends the archive and returns the first error of all writes.
func (c *cpioWriter) close() error {
	c.inode = 0
	c.entry("TRAILER!!!", 0, nil)
	if c.err != nil {
		return fmt.Errorf("write cpio archive: %w", c.err)
	}
	return nil
}

// entry writes one header with its name and data, each padded to four bytes. Names are relative to
// the root: the kernel unpacks there.
func (c *cpioWriter) entry(name string, mode uint32, data []byte) {
	if mode != 0 {
		name = path.Clean("/" + name)[1:]
		c.inode++
	}
	if uint64(len(data)) > 0xffffffff {
		c.fail(fmt.Errorf("add %s: %d bytes do not fit in the format", name, len(data)))
	}
	links := 1
	if mode&cpioDir != 0 {
		links = 2
	}
	// magic, inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.padded([]byte(header + name + "\x00"))
	c.padded(data)
}

func (c *cpioWriter) padded(data []byte) {
	c.write(data)
	c.write(make([]byte, (4-len(data)%4)%4))
}

func (c *cpioWriter) write(data []byte) {
	if c.err == nil && len(data) > 0 {
		_, c.err = c.w.Write(data)
	}
}

func (c *cpioWriter) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// unixPerm keeps permissions and the set-id and sticky bits.
func unixPerm(m fs.FileMode) uint32 {
	perm := uint32(m.Perm())
	for bit, unix := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			perm |= unix
		}
	}
	return perm
}
