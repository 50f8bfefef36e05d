package faults

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
)

// IOLoad keeps the disk under a directory busy, in a file without a name. Exactly one of Bytes and Operations.
type IOLoad struct {
	// Bytes are read or written per second.
	Bytes int64
	// Operations are made per second.
	Operations float64
	// Op is "read", "write" (or empty) or "fsync".
	Op string
	// Pattern is "sequential" (or empty) or "random".
	Pattern string
	// Block is the length of an operation, Size that of the file, in bytes; 0: defaultBlock and defaultSize.
	Block, Size int64
	// Floor is how much space is always left, in bytes; nil: as of Disk.
	Floor *int64
	// Place is "inside" (or empty) or "beside".
	Place string
	// AllowRoot allows file systems of the node itself.
	AllowRoot bool
}

const (
	patternRandom = "random"

	defaultBlock = 64 << 10
	defaultSize  = 64 * mebibyte
	// leastBlock is what all disks can read and write.
	leastBlock = 4 << 10
	mostBlock  = 16 * mebibyte

	mostOperations = 1e6
)

func ioLoadParameters() []Parameter {
	return []Parameter{
		{"load", "rate", "keep the disk under path busy: 20MiB per second, or '200 ops' per second; instead of a limit"},
		{"op", "read|write|fsync", "what an operation of the load is; fsync writes a block and waits until the disk has it; empty: write"},
		{"pattern", "sequential|random", "which block comes next; empty: sequential"},
		{"block", "amount", "how much an operation of the load reads or writes; empty: 64KiB"},
		{"size", "amount", "how large the load's file is; empty: 64MiB"},
		{"floor", "amount", "the load's file never leaves less space free; empty: 64MiB"},
		placeParameter(),
		{"allowRoot", "bool", "allow a load on the node's own file systems (of /, kubelet, the container runtime, faultd)"},
	}
}

// newIOLoad gives nil if no load is asked for.
func newIOLoad(s *v1.Io) (*IOLoad, error) {
	if s.GetLoad() == "" {
		return nil, needsLoad("load", []choice{{"op", s.GetOp() != ""}, {"pattern", s.GetPattern() != ""}, {"block", s.GetBlock() != ""}, {"size", s.GetSize() != ""},
			{"floor", s.GetFloor() != ""}, {"place", s.GetPlace() != ""}, {"allowRoot", s.GetAllowRoot()}})
	}
	l := &IOLoad{Op: s.GetOp(), Pattern: s.GetPattern(), Block: defaultBlock, Size: defaultSize, Place: s.GetPlace(), AllowRoot: s.GetAllowRoot()}
	var floor int64
	for _, amount := range []struct {
		field, text string
		into        *int64
	}{{"block", s.GetBlock(), &l.Block}, {"size", s.GetSize(), &l.Size}, {"floor", s.GetFloor(), &floor}} {
		if amount.text == "" {
			continue
		}
		var err error
		if *amount.into, err = parseAmount(amount.field, amount.text, false); err != nil {
			return nil, err
		}
	}
	if s.GetFloor() != "" {
		l.Floor = &floor
	}
	return l, l.parseRate(s.GetLoad())
}

func (l *IOLoad) parseRate(text string) (err error) {
	if number, ops := strings.CutSuffix(text, " ops"); ops {
		l.Operations, err = strconv.ParseFloat(number, 64)
		if err != nil || !(l.Operations > 0 && l.Operations <= mostOperations) {
			return fmt.Errorf("load: %q must be in (0,%d] operations per second, such as %q", text, int(mostOperations), "200 ops")
		}
		return nil
	}
	if l.Bytes, err = parseAmount("load", text, false); err == nil && l.Bytes == 0 {
		err = fmt.Errorf("load: %q must be more than 0 bytes per second", text)
	}
	return err
}

func (l *IOLoad) validate() error {
	switch {
	case l.Op != "" && l.Op != burn.OpRead && l.Op != burn.OpWrite && l.Op != burn.OpFsync:
		return fmt.Errorf("op: %q must be read, write or fsync", l.Op)
	case l.Pattern != "" && l.Pattern != "sequential" && l.Pattern != patternRandom:
		return fmt.Errorf("pattern: %q must be sequential or random", l.Pattern)
	case l.Block < leastBlock || l.Block > mostBlock || l.Block%leastBlock != 0:
		return fmt.Errorf("block: %d bytes must be a multiple of 4KiB, up to 16MiB", l.Block)
	case l.Size < l.Block || l.Size%l.Block != 0:
		return fmt.Errorf("size: %d bytes must be a multiple of block, which is %d bytes", l.Size, l.Block)
	}
	return checkPlace(l.Place)
}

// every is the time from one operation to the next.
func (l *IOLoad) every() time.Duration {
	perSecond := l.Operations
	if l.Bytes > 0 {
		perSecond = float64(l.Bytes) / float64(l.Block)
	}
	return time.Duration(max(1, float64(time.Second)/perSecond))
}

// work is for a burner.
func (l *IOLoad) work() *burn.IO {
	op := l.Op
	if op == "" {
		op = burn.OpWrite
	}
	return &burn.IO{Op: op, Random: l.Pattern == patternRandom, Block: l.Block, Size: l.Size}
}

// ioLoad is a running IOLoad. It is over before its file is.
type ioLoad struct {
	*burner
	io   IO
	file *hole
}

func (f IO) startLoad(env Env, target cgroup.Target, common Common) (Handle, error) {
	file, err := f.Load.makeFile(env, target, common, f.Path)
	if err != nil {
		return nil, ofKind("io", err)
	}
	l := &ioLoad{io: f, file: file}
	if l.burner, err = f.Load.startOn(file, env, target, common); err != nil {
		return nil, errors.Join(ofKind("io", err), file.release())
	}
	l.Want(f.Load.every().Nanoseconds())
	l.awaitFirst(func() bool { return l.Done()+l.FailedOperations() > 0 })
	return l, nil
}

// place is where the load's file is made, if it may and can be. The caller closes it.
func (l *IOLoad) place(env Env, target cgroup.Target, path string) (*place, error) {
	p, err := openPlace(env, target, path)
	if err != nil {
		return nil, err
	}
	if p.mount.Type == "tmpfs" || p.mount.Type == "ramfs" {
		return nil, errors.Join(unfit("path", "%s is a %s, which has no disk", path, p.mount.Type), p.close())
	}
	if err := l.level().fits(env, p); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// level is what is common to all that fills.
func (l *IOLoad) level() Disk { return Disk{Size: &l.Size, Floor: l.Floor, AllowRoot: l.AllowRoot} }

// makeFile makes the load's file, with all its space.
func (l *IOLoad) makeFile(env Env, target cgroup.Target, common Common, path string) (*hole, error) {
	p, err := l.place(env, target, path)
	if err != nil {
		return nil, err
	}
	h, err := newHole(env, p, common.ID)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := l.level().takeAll(h); err != nil {
		return nil, errors.Join(err, h.release())
	}
	return h, nil
}

// takeAll takes Size, and nothing that the floor keeps.
func (d Disk) takeAll(h *hole) error {
	for h.size < *d.Size {
		u, err := h.usage()
		if err != nil {
			return err
		}
		n := min(h.most(), d.due(u, h.size, d.floor(u), 1))
		if n <= 0 {
			return unfit("size", "%s are more than what is free above the floor of %s", d.show(*d.Size), d.show(d.floor(u)))
		}
		if _, err := h.take(n); err != nil {
			return fmt.Errorf("take space for the load's file: %w", err)
		}
	}
	return nil
}

// startOn starts the burner, which has the file past the page cache: that would answer in the disk's place.
func (l *IOLoad) startOn(file *hole, env Env, target cgroup.Target, common Common) (*burner, error) {
	direct, err := file.direct()
	if err != nil {
		return nil, err
	}
	defer direct.Close()
	work := l.work()
	work.File = direct
	return startBurner(env, target, common, l.Place, burn.Work{IO: work})
}

// Update implements Handle: only the end can change.
func (l *ioLoad) Update(fault Fault, common Common) error {
	if err := onlyEnd("io.load", "load", l.io, fault); err != nil {
		return err
	}
	l.extend(common.Until)
	return nil
}

// Counters implements Handle: operations. Those that failed, and those that were due and not made, are not applied.
func (l *ioLoad) Counters() bpf.Counters {
	done, failed := l.Done(), l.FailedOperations()
	c := bpf.Counters{Injected: uint64(done), NotApplied: uint64(failed)}
	missing := l.Asked() - done - failed
	if float64(missing) > mayMiss*float64(l.Asked()) && missing*l.io.Load.every().Nanoseconds() > mayMissAtAll.Nanoseconds() {
		c.NotApplied += uint64(missing)
	}
	return l.account(c)
}

// Notes implements Handle.
func (l *ioLoad) Notes() []string {
	notes := l.burner.Notes()
	if n := l.FailedOperations(); n > 0 {
		notes = append(notes, fmt.Sprintf("%d operations failed", n))
	}
	return notes
}

// Close implements Handle.
func (l *ioLoad) Close() error {
	if err := l.burner.Close(); err != nil {
		return err
	}
	return l.file.release()
}

// direct opens the file again, past the page cache.
func (h *hole) direct() (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", h.file.Fd()), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, unfit("path", "%s (%s) cannot be read and written past the page cache (O_DIRECT), which would answer in the disk's place; choose a directory of another file system",
			h.file.Name(), h.place.mount.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("open the load's file past the page cache: %w", err)
	}
	return os.NewFile(uintptr(fd), h.file.Name()), nil
}
