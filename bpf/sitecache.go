package bpf

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxCachedFiles bounds the cache; a node runs few different libraries.
const maxCachedFiles = 256

// fileID tells files apart.
type fileID struct{ dev, inode uint64 }

// fileVersion tells contents apart, too.
type fileVersion struct {
	fileID
	size, modified, changed int64
}

// siteCache remembers the sites of files. The zero value is empty; it may be used by several goroutines.
type siteCache struct {
	mu    sync.Mutex
	known map[fileVersion]siteResult
}

type siteResult struct {
	sites SyscallSites
	err   error
}

func versionOf(f *os.File) (fileVersion, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileVersion{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return fileVersion{fileID{st.Dev, st.Ino}, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// of gives a file's sites. The file must not change while it is mapped as a program, which kernels see to where it matters.
func (c *siteCache) of(f *os.File) (SyscallSites, error) {
	version, err := versionOf(f)
	if err != nil {
		return SyscallSites{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	result, ok := c.known[version]
	if !ok {
		result.sites, result.err = FindSyscallSites(f)
		if c.known == nil || len(c.known) >= maxCachedFiles {
			c.known = map[fileVersion]siteResult{}
		}
		c.known[version] = result
	}
	return result.sites, result.err
}
