package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"faultd/mounts"
)

// openNetNS finds a network namespace by its inode: that of a process, of a thread, one that is mounted (ip netns, CNI,
// Docker), or one that a process holds open. The caller closes the file. No file and no error: there is no such namespace any more. What could not be looked
// at is an error, unless it was found elsewhere: "gone" must be certain, as it ends the search for good.
func openNetNS(inode uint64) (*os.File, error) {
	s := netnsSearch{inode: inode, name: fmt.Sprintf("net:[%d]", inode)}
	for _, look := range []func() *os.File{s.processes, s.mounts, s.threads, s.descriptors} {
		if f := look(); f != nil {
			return f, nil
		}
	}
	if s.err != nil {
		return nil, fmt.Errorf("look for network namespace %d: %w", inode, s.err)
	}
	return nil, nil
}

type netnsSearch struct {
	inode uint64
	name  string
	err   error // the first thing that could not be looked at
}

// note keeps what makes the search uncertain. Two things do not: a process that has ended, and one that we are not allowed
// to look at (PTRACE_MODE_READ, proc_pid_ns(5)), which holds even for root beside a stricter neighbour: faultd got into the
// namespace by such a link, so it was another one's. As that does not change, an error would never end.
func (s *netnsSearch) note(err error) {
	if s.err == nil && err != nil && !noProcess(err) && !errors.Is(err, fs.ErrPermission) {
		s.err = err
	}
}

func (s *netnsSearch) processes() *os.File {
	for _, pid := range s.numbers("/proc") {
		if f := s.try(filepath.Join("/proc", pid, "ns/net")); f != nil {
			return f
		}
	}
	return nil
}

// threads looks at every thread: one may have left the namespace of its process (setns(2)).
func (s *netnsSearch) threads() *os.File {
	for _, pid := range s.numbers("/proc") {
		tasks := filepath.Join("/proc", pid, "task")
		for _, tid := range s.numbers(tasks) {
			if f := s.try(filepath.Join(tasks, tid, "ns/net")); f != nil {
				return f
			}
		}
	}
	return nil
}

// descriptors looks at what every process holds open: a namespace may outlive all that were in it. It takes long, and so is last.
func (s *netnsSearch) descriptors() *os.File {
	for _, pid := range s.numbers("/proc") {
		dir := filepath.Join("/proc", pid, "fd")
		for _, fd := range s.numbers(dir) {
			if f := s.try(filepath.Join(dir, fd)); f != nil {
				return f
			}
		}
	}
	return nil
}

// mounts looks at the mounts that we see and, as we may be in a container, at those of the host.
func (s *netnsSearch) mounts() *os.File {
	for pid, root := range map[string]string{"self": "", "1": "/proc/1/root"} {
		seen, err := mounts.Of(pid)
		s.note(err)
		for _, m := range seen {
			if m.Root != s.name {
				continue
			}
			if f := s.open(root + m.Point); f != nil {
				return f
			}
		}
	}
	return nil
}

func (s *netnsSearch) try(link string) *os.File {
	name, err := os.Readlink(link)
	s.note(err)
	if name != s.name {
		return nil
	}
	return s.open(link)
}

// open looks again once the file is open: what a path means can change in between.
func (s *netnsSearch) open(path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		s.note(err)
		return nil
	}
	var st unix.Stat_t
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind == unix.CLONE_NEWNET && unix.Fstat(int(f.Fd()), &st) == nil && st.Ino == s.inode {
		return f
	}
	f.Close()
	return nil
}

// numbers are the entries of a directory that are numbers.
func (s *netnsSearch) numbers(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		s.note(err)
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	s.note(err)
	var numbers []string
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 32); err == nil {
			numbers = append(numbers, name)
		}
	}
	return numbers
}
