package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"faultd/bpf"

	"golang.org/x/sys/unix"
)

// fileName is the one file of the file system.
const fileName = "sleep"

// sleepfs is a file system of one file, whose page n answers, with an error, when sleeper n may go on. So nothing is
// ever cached, and a page serves again.
type sleepfs struct {
	conn     connection
	sleepers *bpf.Sleepers
	// reads are the unanswered requests by sleeper; 0: none. held are the sleepers that have one.
	reads [bpf.MaxSleepers]uint64
	held  []int
	// signalled are those that got a signal, which may be one that ends them.
	signalled [bpf.MaxSleepers]bool
}

// mountSleepfs makes the file system and gives a descriptor of its mount, which is attached nowhere; the caller closes both.
func mountSleepfs(sleepers *bpf.Sleepers) (*sleepfs, int, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("open /dev/fuse: %w: load the fuse module, and give the device to a container", err)
	}
	mount, err := mountFuse(dev)
	if err != nil {
		return nil, -1, errors.Join(err, unix.Close(dev))
	}
	return &sleepfs{conn: connection{fd: dev, buf: make([]byte, readBuffer)}, sleepers: sleepers}, mount, nil
}

func mountFuse(dev int) (int, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open the fuse file system: %w", err)
	}
	defer unix.Close(fs)
	for _, option := range [][2]string{
		{"source", "faultd"}, {"fd", strconv.Itoa(dev)}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"}, {"max_read", "4096"},
	} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return -1, fmt.Errorf("set %s of the fuse file system: %w", option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create the fuse file system: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return -1, fmt.Errorf("mount the fuse file system detached: %w", err)
	}
	return mount, nil
}

// close lets every sleeper go: the kernel aborts the connection.
func (s *sleepfs) close() error { return unix.Close(s.conn.fd) }

// serve answers all waiting requests but the reads that shall wait.
func (s *sleepfs) serve() error {
	for {
		r, err := s.conn.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.handle(r); err != nil {
			return err
		}
	}
}

func (s *sleepfs) handle(r request) error {
	const size = bpf.MaxSleepers * bpf.SleepPage
	switch r.opcode {
	case fuseInit:
		return s.conn.answer(r.unique, 0, initReply())
	case fuseLookup:
		if r.node != rootNode || string(r.body) != fileName+"\x00" {
			return s.conn.answer(r.unique, unix.ENOENT, nil)
		}
		return s.conn.answer(r.unique, 0, lookupReply(size))
	case fuseGetattr:
		return s.conn.answer(r.unique, 0, getattrReply(r.node, size))
	case fuseOpen, fuseOpendir:
		return s.conn.answer(r.unique, 0, make([]byte, 16)) // struct fuse_open_out
	case fuseRead:
		return s.read(r)
	case fuseInterrupt:
		return s.interrupt(r)
	case fuseStatfs:
		return s.conn.answer(r.unique, 0, make([]byte, 80)) // struct fuse_statfs_out
	case fuseRelease, fuseReleasedir, fuseFlush, fuseDestroy:
		return s.conn.answer(r.unique, 0, nil)
	case fuseForget, fuseBatchForget:
		return nil // the kernel waits for no answer
	}
	return s.conn.answer(r.unique, unix.ENOSYS, nil)
}

// read holds the sleeper whose page is read, if it may sleep; everything else fails at once.
func (s *sleepfs) read(r request) error {
	if len(r.body) < 16 || r.node != fileNode {
		return s.conn.answer(r.unique, unix.EIO, nil)
	}
	page, now := binary.NativeEndian.Uint64(r.body[8:])/bpf.SleepPage, uint64(bpf.Monotonic())
	if page >= bpf.MaxSleepers || s.reads[page] != 0 || !mayHold(s.sleepers.At(int(page)), s.permitted(now)) {
		return s.conn.answer(r.unique, unix.EIO, nil)
	}
	sleeper := s.sleepers.At(int(page))
	s.sleepers.AnswerEarly(int(page), now)
	sleeper.Hold()
	if now >= sleeper.Due() {
		return s.conn.answer(r.unique, unix.EIO, nil)
	}
	s.reads[page] = r.unique
	s.held = append(s.held, int(page))
	return nil
}

// permitted is the generation whose sleepers switch and lease let sleep, or 0.
func (s *sleepfs) permitted(now uint64) uint64 {
	if now >= s.sleepers.LeaseUntil() {
		return 0
	}
	return s.sleepers.Generation()
}

// mayHold says whether a sleeper is one of the permitted generation.
func mayHold(sleeper bpf.Sleeper, permitted uint64) bool {
	return permitted != 0 && sleeper.Taken() && sleeper.Generation() == permitted
}

// interrupt notes that a thread got a signal. The kernel tells it once, and then waits for the answer even when SIGKILL
// comes: release must look whether the thread has to die.
func (s *sleepfs) interrupt(r request) error {
	if len(r.body) < 8 {
		return nil
	}
	unique := binary.NativeEndian.Uint64(r.body)
	for _, page := range s.held {
		if s.reads[page] == unique {
			s.signalled[page] = true
		}
	}
	return nil
}

func (s *sleepfs) free(page int) error {
	unique := s.reads[page]
	s.reads[page], s.signalled[page] = 0, false
	return s.conn.answer(unique, unix.EIO, nil)
}

// release lets everybody go who need not wait any longer, or with all set, everybody. It gives the time of the next
// deadline, or 0 if nobody is held.
func (s *sleepfs) release(all bool) (next uint64, err error) {
	if len(s.held) == 0 {
		return 0, nil
	}
	now := uint64(bpf.Monotonic()) // one time for all: whoever is due meanwhile is due in the next turn
	permitted := s.permitted(now)
	still := s.held[:0]
	for _, page := range s.held {
		sleeper := s.sleepers.At(page)
		due := sleeper.Due()
		if all || now >= due || !mayHold(sleeper, permitted) || s.signalled[page] && mustWake(sleeper.TID()) {
			err = errors.Join(err, s.free(page))
			continue
		}
		still = append(still, page)
		if next == 0 || due < next {
			next = due
		}
	}
	s.held = still
	return next, err
}
