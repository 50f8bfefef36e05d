package faults

import "golang.org/x/sys/unix"

// flagValues are the flags that conditions on arguments may name.
func flagValues() map[string]uint64 {
	return map[string]uint64{
		"O_RDONLY": unix.O_RDONLY, "O_WRONLY": unix.O_WRONLY, "O_RDWR": unix.O_RDWR, "O_CREAT": unix.O_CREAT, "O_EXCL": unix.O_EXCL,
		"O_TRUNC": unix.O_TRUNC, "O_APPEND": unix.O_APPEND, "O_NONBLOCK": unix.O_NONBLOCK, "O_DSYNC": unix.O_DSYNC, "O_SYNC": unix.O_SYNC,
		"O_DIRECT": unix.O_DIRECT, "O_DIRECTORY": unix.O_DIRECTORY, "O_NOFOLLOW": unix.O_NOFOLLOW, "O_CLOEXEC": unix.O_CLOEXEC,
		"O_PATH": unix.O_PATH, "O_TMPFILE": unix.O_TMPFILE,
		"PROT_READ": unix.PROT_READ, "PROT_WRITE": unix.PROT_WRITE, "PROT_EXEC": unix.PROT_EXEC,
		"MAP_SHARED": unix.MAP_SHARED, "MAP_PRIVATE": unix.MAP_PRIVATE, "MAP_FIXED": unix.MAP_FIXED, "MAP_ANONYMOUS": unix.MAP_ANONYMOUS,
		"MAP_POPULATE": unix.MAP_POPULATE, "MAP_HUGETLB": unix.MAP_HUGETLB,
		"FALLOC_FL_KEEP_SIZE": unix.FALLOC_FL_KEEP_SIZE, "FALLOC_FL_PUNCH_HOLE": unix.FALLOC_FL_PUNCH_HOLE,
		"MSG_DONTWAIT": unix.MSG_DONTWAIT, "MSG_PEEK": unix.MSG_PEEK, "MSG_NOSIGNAL": unix.MSG_NOSIGNAL, "MSG_MORE": unix.MSG_MORE,
		"CLONE_THREAD": unix.CLONE_THREAD, "CLONE_NEWNS": unix.CLONE_NEWNS, "CLONE_NEWNET": unix.CLONE_NEWNET, "CLONE_NEWUSER": unix.CLONE_NEWUSER,
	}
}
