package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The part of linux/fuse.h that one read-only file needs.
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFlush       = 25
	fuseInit        = 26
	fuseOpendir     = 27
	fuseReleasedir  = 29
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42

	fuseMajor = 7
	fuseMinor = 31

	inHeaderSize  = 40
	outHeaderSize = 16
	attrSize      = 88

	rootNode = 1
	fileNode = 2

	// readBuffer holds any request that the kernel sends to a file system that is never written to.
	readBuffer = 64 << 10
	// attrSeconds is how long the kernel may believe attributes, which never change.
	attrSeconds = 1 << 30
)

// request is one message from the kernel.
type request struct {
	opcode uint32
	unique uint64
	node   uint64
	body   []byte
}

// connection speaks the FUSE protocol on an open /dev/fuse.
type connection struct {
	fd  int
	buf []byte
	out []byte
}

// next reads a request; io.EOF when none waits.
func (c *connection) next() (request, error) {
	for {
		n, err := unix.Read(c.fd, c.buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // ENOENT: the request was taken back
			continue
		case errors.Is(err, unix.EAGAIN):
			return request{}, io.EOF
		case err != nil:
			return request{}, fmt.Errorf("read from /dev/fuse: %w", err)
		case n < inHeaderSize:
			return request{}, fmt.Errorf("read from /dev/fuse: %d bytes are no request", n)
		}
		b := c.buf[:n]
		return request{
			opcode: binary.NativeEndian.Uint32(b[4:]),
			unique: binary.NativeEndian.Uint64(b[8:]),
			node:   binary.NativeEndian.Uint64(b[16:]),
			body:   b[inHeaderSize:],
		}, nil
	}
}

// answer sends an errno (0: success) with a body. ENOENT, the request is gone, is no error.
func (c *connection) answer(unique uint64, errno unix.Errno, body []byte) error {
	c.out = binary.NativeEndian.AppendUint32(c.out[:0], uint32(outHeaderSize+len(body)))
	c.out = binary.NativeEndian.AppendUint32(c.out, uint32(-int32(errno)))
	c.out = binary.NativeEndian.AppendUint64(c.out, unique)
	c.out = append(c.out, body...)
	for {
		_, err := unix.Write(c.fd, c.out)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer on /dev/fuse: %w", err)
		}
		return nil
	}
}

// initReply agrees to protocol 7.31 without any option.
func initReply() []byte {
	b := make([]byte, 64) // struct fuse_init_out
	binary.NativeEndian.PutUint32(b[0:], fuseMajor)
	binary.NativeEndian.PutUint32(b[4:], fuseMinor)
	binary.NativeEndian.PutUint32(b[20:], 4096) // max_write
	return b
}

// attributes is struct fuse_attr.
func attributes(node uint64, size uint64) []byte {
	mode := uint32(unix.S_IFDIR | 0o500)
	if node == fileNode {
		mode = unix.S_IFREG | 0o400
	} else {
		size = 0
	}
	b := make([]byte, attrSize)
	binary.NativeEndian.PutUint64(b[0:], node)
	binary.NativeEndian.PutUint64(b[8:], size)
	binary.NativeEndian.PutUint32(b[60:], mode)
	binary.NativeEndian.PutUint32(b[64:], 1) // nlink
	binary.NativeEndian.PutUint32(b[80:], 4096)
	return b
}

func lookupReply(size uint64) []byte {
	b := make([]byte, 40, 40+attrSize) // struct fuse_entry_out
	binary.NativeEndian.PutUint64(b[0:], fileNode)
	binary.NativeEndian.PutUint64(b[16:], attrSeconds)
	binary.NativeEndian.PutUint64(b[24:], attrSeconds)
	return append(b, attributes(fileNode, size)...)
}

func getattrReply(node, size uint64) []byte {
	b := make([]byte, 16, 16+attrSize) // struct fuse_attr_out
	binary.NativeEndian.PutUint64(b[0:], attrSeconds)
	return append(b, attributes(node, size)...)
}
