package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of the ABI (faultd.h).
const (
	// MaxSleepers is how many threads can be asleep at once; sleeper n is page n of the guard's file.
	MaxSleepers = 1024
	// SleepPage is the size of such a page.
	SleepPage = 4096
	// maxParts is how many rules one sleep may be for.
	maxParts = 4
	// earlyNs is the place of early_ns in a sleeper, in halves.
	earlyNs = 12
	// maxEarly bounds how early a sleeper is answered, in ns.
	maxEarly = 50_000

	sleeperSize = int(unsafe.Sizeof(sharedSleeper{}))
)

// initialPIDNamespace is the inode of the first one, PROC_PID_INIT_INO of the kernel.
const initialPIDNamespace = 0xEFFFFFFC

// SleepFiles are what a guard needs of the kernel side, in the order that OpenSleepers takes them. They are copies: the
// caller closes them.
func (k *Kernel) SleepFiles() ([]*os.File, error) {
	return k.copies("faultd_kill", "faultd_lease", "faultd_sleepers", "faultd_sleep")
}

// copies are descriptors of maps for another process.
func (k *Kernel) copies(names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		fd, err := unix.FcntlInt(uintptr(k.maps[name].FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("copy the descriptor of %s: %w", name, err)
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}

// SleepReady says whether a guard holds sleepers now; without one, delays are counted as not applied.
func (k *Kernel) SleepReady() error {
	var config sharedSleepConfig
	if err := k.maps["faultd_sleep"].Lookup(uint32(0), &config); err != nil {
		return fmt.Errorf("read the sleep configuration: %w", err)
	}
	if config.Holder == 0 {
		return errors.New("no guard holds sleepers at the moment")
	}
	return nil
}

// CanSleep says whether threads can be put to sleep from where we run, if a guard can open /dev/fuse.
func CanSleep() error {
	if size := os.Getpagesize(); size != SleepPage {
		return fmt.Errorf("%w: delays need pages of %d bytes, here they have %d", ErrNotSupported, SleepPage, size)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at our PID namespace: %w", err)
	}
	if st.Ino != initialPIDNamespace {
		return fmt.Errorf("%w: delays need the host's PID namespace (hostPID: true)", ErrNotSupported)
	}
	// Whether it may be opened is the guard's to say: where a container's rules for devices forbid it here, they do not hold in its cgroup.
	if err := unix.Access("/dev/fuse", unix.F_OK); err != nil {
		return fmt.Errorf("%w: delays need /dev/fuse (%w): load the fuse module, and give the device to a container", ErrNotSupported, err)
	}
	return nil
}

// Sleepers is the guard's view of switch, lease and sleeping threads: memory shared with the kernel.
type Sleepers struct{ kill, lease, sleepers, config page }

// OpenSleepers maps what SleepFiles gave, by descriptor. The caller closes it; the descriptors stay the caller's.
func OpenSleepers(kill, lease, sleepers, config int) (*Sleepers, error) {
	s := &Sleepers{}
	var err error
	for _, m := range []struct {
		to       *page
		fd, size int
		name     string
	}{
		{&s.kill, kill, 8, "the kill switch"}, {&s.lease, lease, 8, "the lease"},
		{&s.sleepers, sleepers, MaxSleepers * sleeperSize, "the sleepers"},
		{&s.config, config, int(unsafe.Sizeof(sharedSleepConfig{})), "the sleep configuration"},
	} {
		if *m.to, err = openPage(m.fd, m.size, m.name); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close unmaps.
func (s *Sleepers) Close() error {
	return errors.Join(s.kill.close(), s.lease.close(), s.sleepers.close(), s.config.close())
}

// Generation is the armed generation, or 0 after a kill.
func (s *Sleepers) Generation() uint64 { return s.kill.word(0).Load() }

// Permitted is the generation whose harm is permitted now: switch and lease allow it. 0: none is.
func (s *Sleepers) Permitted() uint64 {
	generation := s.Generation()
	if now := uint64(Monotonic()); now >= s.LeaseUntil() { // in this order: the lease may be renewed meanwhile
		return 0
	}
	return generation
}

// LeaseUntil is until when the daemon is believed alive, on the clock of Monotonic.
func (s *Sleepers) LeaseUntil() uint64 { return s.lease.word(0).Load() }

// SetHolder names the process and the address whose pages put threads to sleep.
func (s *Sleepers) SetHolder(pid int, address uint64) {
	s.config.word(0).Store(address)
	s.holder().Store(uint32(pid))
}

// ClearHolder stops new sleeps.
func (s *Sleepers) ClearHolder() { s.holder().Store(0) }

func (s *Sleepers) holder() *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s.config.bytes[8]))
}

// Sleeper is one thread's place.
type Sleeper struct {
	words *[sleeperSize / 8]atomic.Uint64
}

// At is sleeper n, which must be below MaxSleepers.
func (s *Sleepers) At(n int) Sleeper { return sleeperAt(s.sleepers, n) }

func sleeperAt(sleepers page, n int) Sleeper {
	return Sleeper{(*[sleeperSize / 8]atomic.Uint64)(unsafe.Pointer(&sleepers.bytes[n*sleeperSize]))}
}

func (s Sleeper) half(i int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Add(unsafe.Pointer(s.words), i*4))
}

// Taken says whether a thread uses this place.
func (s Sleeper) Taken() bool { return s.half(0).Load() != 0 }

// Hold tells the thread that it was held.
func (s Sleeper) Hold() { s.half(1).Store(1) }

// Until is when its delay ends, on the clock of Monotonic.
func (s Sleeper) Until() uint64 { return s.words[1].Load() }

// AnswerEarly makes Due come before Until, as threads wake up late: by how much they lately did at least, but no more than
// maxEarly and three quarters of the delay that is left. The program waits out what is too early. Now is by Monotonic.
func (s *Sleepers) AnswerEarly(n int, now uint64) {
	sleeper := s.At(n)
	const lateNs = 3 // in halves of the configuration
	late := uint64((*atomic.Uint32)(unsafe.Pointer(&s.config.bytes[lateNs*4])).Load())
	left := max(0, int64(sleeper.Until()-now))
	sleeper.half(earlyNs).Store(uint32(min(late, maxEarly, uint64(left)/4*3)))
}

// Due is when the guard should answer, on the clock of Monotonic.
func (s Sleeper) Due() uint64 {
	until, early := s.Until(), uint64(s.half(earlyNs).Load())
	return until - min(early, until)
}

// Generation is the switch's generation when it went to sleep.
func (s Sleeper) Generation() uint64 { return s.words[2].Load() }

// TID is the thread, in the initial PID namespace.
func (s Sleeper) TID() int { return int(s.half(6).Load()) }

// serves says whether a rule is among those that the thread sleeps for.
func (s Sleeper) serves(slot int) bool {
	const firstSlot = 8 // rule_slots, in halves
	for i := range min(int(s.half(7).Load()), maxParts) {
		if s.half(firstSlot+i).Load() == uint32(slot) {
			return true
		}
	}
	return false
}

// free ends the sleep: the guard sees that its time is over.
func (s Sleeper) free() { s.words[1].Store(0) }
