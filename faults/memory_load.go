package faults

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
)

// MemoryLoad takes memory.
type MemoryLoad struct {
	// Amount is "512MiB", "50% of limit" (of the target's memory.max) or "50% of available".
	Amount string
	// Type is "anonymous" (or empty), "shared", "locked" or "cache".
	Type string
	// Path is a directory, as the target sees it, for the file of a cache.
	Path string
	// Ramp is the time in which it is taken, evenly; 0: at once.
	Ramp time.Duration
	// Floor is how much is always left, in bytes; nil: defaultFloor of space.
	Floor *int64
	// Place is "inside" (or empty) or "beside".
	Place string
}

// Types of memory.
const (
	typeAnonymous = "anonymous"
	typeShared    = "shared"
	typeLocked    = "locked"
	typeCache     = "cache"
)

func memoryLoadParameters() []Parameter {
	return []Parameter{
		{"load", "amount", "take memory and keep it: 512MiB, 50% of limit, of what the target may have, or 50% of available; instead of a limit"},
		{"type", "anonymous|shared|locked|cache", "private memory, shared memory (tmpfs), private memory that cannot be swapped out, or the page cache of a file; empty: anonymous"},
		{"path", "path", "a directory for the file of a cache, as the target sees it"},
		{"floor", "amount", "never leave less available, on the node and within limits; empty: 64MiB"},
		placeParameter(),
	}
}

// newMemoryLoad gives nil if no load is asked for.
func newMemoryLoad(s *v1.Memory, duration string) (*MemoryLoad, error) {
	if s.GetLoad() == "" {
		return nil, needsLoad("load", []choice{{"type", s.GetType() != ""}, {"path", s.GetPath() != ""}, {"floor", s.GetFloor() != ""}, {"place", s.GetPlace() != ""}})
	}
	l := &MemoryLoad{Amount: s.GetLoad(), Type: s.GetType(), Path: s.GetPath(), Place: s.GetPlace()}
	var err error
	if l.Ramp, err = parseRamp(s.GetRamp(), duration); err != nil {
		return nil, err
	}
	if s.GetFloor() != "" {
		floor, err := parseAmount("floor", s.GetFloor(), false)
		if err != nil {
			return nil, err
		}
		l.Floor = &floor
	}
	return l, nil
}

func (l *MemoryLoad) validate() error {
	if !slices.Contains([]string{"", typeAnonymous, typeShared, typeLocked, typeCache}, l.Type) {
		return fmt.Errorf("type: %q must be anonymous, shared, locked or cache", l.Type)
	}
	switch {
	case l.Type != typeCache && l.Path != "":
		return fmt.Errorf("path: it was given with type %q, and only cache has a file", l.Type)
	case l.Type == typeCache && !filepath.IsAbs(l.Path):
		return fmt.Errorf("path: %q is not absolute; cache needs a directory as the target sees it, such as /var/lib/app", l.Path)
	}
	if _, _, _, err := l.parse(); err != nil {
		return err
	}
	return checkPlace(l.Place)
}

// parse reads Amount: bytes, or a part of something.
func (l *MemoryLoad) parse() (bytes int64, part float64, of string, err error) {
	number, of, isShare := strings.Cut(l.Amount, "% of ")
	if !isShare {
		if strings.HasSuffix(l.Amount, "%") {
			return 0, 0, "", fmt.Errorf("load: %q does not say of what; write %q, of the most that the target may have, or %q, of the node", l.Amount, l.Amount+" of limit", l.Amount+" of available")
		}
		if bytes, err = parseAmount("load", l.Amount, false); err == nil && bytes < mebibyte {
			err = fmt.Errorf("load: %q must be at least 1MiB", l.Amount)
		}
		return bytes, 0, "", err
	}
	percent, err := strconv.ParseFloat(number, 64)
	if err != nil || !(percent > 0 && percent <= 100) || of != "limit" && of != "available" {
		return 0, 0, "", fmt.Errorf("load: %q must be in (0,100] percent of limit or of available", l.Amount)
	}
	return 0, percent / 100, of, nil
}

// bytes is how much to take, in whole pages.
func (l *MemoryLoad) bytes(env Env, target cgroup.Target) (int64, error) {
	bytes, part, of, err := l.parse()
	if err != nil {
		return 0, err
	}
	switch of {
	case "limit":
		most, err := readNumber(env, target, "memory.max")
		if err != nil {
			return 0, err
		}
		if most == math.MaxInt64 {
			return 0, &ParameterError{"memory.load", l.Amount + ": the target's memory.max is max; give an amount, or a percentage of available"}
		}
		bytes = int64(part * float64(most))
	case "available":
		free, err := memoryAvailable()
		if err != nil {
			return 0, err
		}
		bytes = int64(part * float64(free))
	}
	bytes -= bytes % int64(os.Getpagesize())
	if bytes < mebibyte {
		return 0, &ParameterError{"memory.load", fmt.Sprintf("%s is %d bytes; it must be at least 1 MiB", l.Amount, bytes)}
	}
	return bytes, nil
}

// memoryLoad is a running MemoryLoad: a fill of memory, which the burner takes.
type memoryLoad struct {
	fill   *fill
	burner *burner
	memory Memory
}

// level is what is common to all that fills: an amount, a floor and a ramp. It is refused if the memory has no room for it.
func (l *MemoryLoad) level(env Env, target cgroup.Target, room memoryRoom) (level Disk, err error) {
	bytes, err := l.bytes(env, target)
	if err != nil {
		return level, err
	}
	level = Disk{Size: &bytes, Floor: l.Floor, Ramp: l.Ramp}
	u, err := room.usage()
	if err != nil {
		return level, err
	}
	if floor := level.floor(u); u.free-bytes < floor {
		err = &ParameterError{"memory.load", fmt.Sprintf("it would leave %s of the %s that are available, and the floor is %s; ask for less, or lower the floor",
			level.show(max(0, u.free-bytes)), level.show(u.free), level.show(floor))}
	}
	return level, err
}

func (m Memory) startLoad(env Env, target cgroup.Target, common Common) (Handle, error) {
	room := memoryRoom{env: env, dir: memoryDir(env, target, m.Load.Place)}
	level, err := m.Load.level(env, target, room)
	if err != nil {
		return nil, err
	}
	b, err := m.Load.start(env, target, common, *level.Size)
	if err != nil {
		return nil, ofKind("memory", err)
	}
	f, err := startFill(level, &memoryTaker{burner: b, orders: b, may: b.permit.given, room: room}, b.permit)
	if err != nil {
		return nil, err
	}
	return &memoryLoad{f, b, m}, nil
}

// start starts the burner. The file of a cache is its alone, and goes with it.
func (l *MemoryLoad) start(env Env, target cgroup.Target, common Common, bytes int64) (*burner, error) {
	work := burn.Work{Bytes: bytes, Shared: l.Type == typeShared, Locked: l.Type == typeLocked}
	if l.Type == typeCache {
		file, err := l.cacheFile(env, target, bytes)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		work.Cache = file
	}
	return startBurner(env, target, common, l.Place, work)
}

// cachePlace is where the file of a cache is made. The caller closes it.
func (l *MemoryLoad) cachePlace(env Env, target cgroup.Target) (*place, error) {
	p, err := openPlace(env, target, l.Path)
	if err != nil {
		return nil, err
	}
	if p.mount.Type == "tmpfs" || p.mount.Type == "ramfs" {
		return nil, errors.Join(unfit("path", "%s is a %s, whose files are shared memory and no page cache of a disk; choose another directory, or type shared", l.Path, p.mount.Type), p.close())
	}
	if err := p.writable(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// cacheFile makes a file that is one hole: what is read of it is in the page cache as any file's data, and takes no space of the disk.
func (l *MemoryLoad) cacheFile(env Env, target cgroup.Target, bytes int64) (*os.File, error) {
	p, err := l.cachePlace(env, target)
	if err != nil {
		return nil, err
	}
	defer p.close()
	file, err := nameless(p)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(bytes); err != nil {
		return nil, errors.Join(fmt.Errorf("make the file of the cache: %w", err), file.Close())
	}
	return file, nil
}

// memoryTaker has a burner take memory.
type memoryTaker struct {
	burner *burner
	// orders are the burner's, and may says whether it may still take.
	orders interface {
		Want(int64)
		Done() int64
		Ended() <-chan struct{}
	}
	may   func() bool
	room  memoryRoom
	taken int64 // as it was told; the burner may be at more by now
}

// memoryStep is as much as is taken before looking around.
const memoryStep = 16 * mebibyte

// takePatience is how long a step may take: a target that is throttled, or swaps, is slow.
const takePatience = time.Second

func (t *memoryTaker) unit() int64       { return int64(os.Getpagesize()) }
func (t *memoryTaker) most() int64       { return memoryStep }
func (t *memoryTaker) scale() int64      { return mebibyte }
func (t *memoryTaker) mechanism() string { return mechanismBurner }
func (t *memoryTaker) notes() []string   { return nil }
func (t *memoryTaker) release() error    { return t.burner.release() }

// usage is asked for before and after each step.
func (t *memoryTaker) usage() (usage, error) {
	t.burner.look()
	return t.room.usage()
}

// take waits for the burner. If that is slow, less was taken; it goes on, and the next step counts that.
func (t *memoryTaker) take(n int64) (int64, error) {
	before := t.taken
	t.orders.Want(before + n)
	var err error
	for end := time.Now().Add(takePatience); err == nil && t.orders.Done() < before+n && time.Now().Before(end) && t.may(); time.Sleep(time.Millisecond) {
		select {
		case <-t.orders.Ended():
			if err = t.burner.endedError(); err == nil {
				return 0, nil // we ended it
			}
		default:
		}
	}
	t.taken = t.orders.Done()
	return t.taken - before, err
}

func (t *memoryTaker) giveBack(n int64) error {
	t.taken -= n
	t.orders.Want(max(1, t.taken))
	return nil
}

// Update implements Handle: only the end can change.
func (l *memoryLoad) Update(fault Fault, common Common) error {
	if err := onlyEnd("memory.load", "load", l.memory, fault); err != nil {
		return err
	}
	l.burner.extend(common.Until)
	return nil
}

// Counters implements Handle: MiB that were in memory at their most; what could not be had is not applied.
func (l *memoryLoad) Counters() bpf.Counters {
	c := l.fill.Counters()
	c.Injected = min(c.Injected, l.burner.residentMiB())
	return l.burner.account(c)
}

// Mechanism implements Handle.
func (l *memoryLoad) Mechanism() string { return mechanismBurner }

// Notes implements Handle.
func (l *memoryLoad) Notes() []string { return append(l.burner.Notes(), l.fill.Notes()...) }

// Disarm implements Handle.
func (l *memoryLoad) Disarm() error { return errors.Join(l.fill.Disarm(), l.burner.Disarm()) }

// Close implements Handle.
func (l *memoryLoad) Close() error { return l.fill.Close() }
