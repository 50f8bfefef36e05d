package burn

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// IO is work for the disk under a file: one operation after the other, at a rate that the daemon gives.
type IO struct {
	// File is opened for reading and writing past the page cache (O_DIRECT), and has Size bytes of space.
	File *os.File
	// Op is OpRead, OpWrite or OpFsync.
	Op string
	// Random: the blocks are chosen by chance; else one follows the other.
	Random bool
	// Block is the length of an operation in bytes, and divides Size.
	Block, Size int64
}

// Operations of a disk.
const (
	OpRead  = "read"
	OpWrite = "write"
	// OpFsync writes a block and waits until the disk has it.
	OpFsync = "fsync"
)

func (w *IO) words() []string {
	return []string{kindIO, w.Op, strconv.FormatBool(w.Random), strconv.FormatInt(w.Block, 10), strconv.FormatInt(w.Size, 10)}
}

// disk is the file of a burner.
type disk struct {
	fd     int
	op     string
	random *rand.Rand // nil: one block after the other
	block  []byte
	blocks int64
	next   int64
}

// useDisk does one operation after the other at the board's rate, until it may not any more.
func (b *burner) useDisk(words []string) error {
	d, err := openDisk(words)
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	for b.may() && b.board.wanted().Load() == 0 {
		rest(pause)
	}
	if d.op == OpRead {
		if err := b.writeAll(d); err != nil {
			return err
		}
	}
	due := bpf.Monotonic()
	for b.may() {
		every := max(1, b.board.wanted().Load())
		behind := bpf.Monotonic() - due
		if behind < 0 {
			rest(min(pause, time.Duration(-behind)))
			continue
		}
		if lost := (behind - mostBehind) / every; lost > 0 {
			b.board.asked().Add(lost)
			due += lost * every
		}
		due += every
		b.board.asked().Add(1)
		if d.do() == nil {
			b.board.done().Add(1)
		} else {
			b.board.failed().Add(1)
		}
	}
	return nil
}

func openDisk(words []string) (*disk, error) {
	block, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the burner's arguments: %w", err)
	}
	size, err := strconv.ParseInt(words[3], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the burner's arguments: %w", err)
	}
	d := &disk{fd: fileWork, op: words[0], blocks: size / block}
	if words[1] == "true" {
		d.random = rand.New(rand.NewPCG(rand.Uint64(), 0))
	}
	// Whole pages, as the disk writes from them and reads into them.
	if d.block, err = unix.Mmap(-1, 0, int(block), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, fmt.Errorf("take memory for a block: %w", err)
	}
	// Nothing that a disk could make smaller.
	_, _ = rand.NewChaCha8([32]byte{}).Read(d.block) // it never fails
	return d, nil
}

// writeAll writes all blocks once: the kernel answers reads of what was never written without asking the disk.
func (b *burner) writeAll(d *disk) error {
	for at := int64(0); at < d.blocks && b.may(); at++ {
		d.stamp(at)
		if _, err := unix.Pwrite(d.fd, d.block, at*int64(len(d.block))); err != nil {
			return fmt.Errorf("write what is to be read: %w", err)
		}
	}
	return nil
}

// do makes one operation.
func (d *disk) do() (err error) {
	at := d.next
	d.next = (d.next + 1) % d.blocks
	if d.random != nil {
		at = d.random.Int64N(d.blocks)
	}
	offset := at * int64(len(d.block))
	if d.op == OpRead {
		_, err = unix.Pread(d.fd, d.block, offset)
		return err
	}
	d.stamp(at)
	if _, err = unix.Pwrite(d.fd, d.block, offset); err == nil && d.op == OpFsync {
		err = unix.Fsync(d.fd)
	}
	return err
}

// sector is the least that disks compare.
const sector = 512

// stamp makes the block unlike all others, for disks that find what is there twice.
func (d *disk) stamp(at int64) {
	for i := 0; i < len(d.block); i += sector {
		d.block[i], d.block[i+1], d.block[i+2], d.block[i+3] = byte(at), byte(at>>8), byte(at>>16), byte(at>>24)
	}
}
