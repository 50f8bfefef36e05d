package bpf

import (
	"io"
	"sync"
)

// misses counts how often the kernel skipped programs since a rule began; for any thread, as the kernel knows no target.
type misses struct {
	mu     sync.Mutex
	used   []*syscallPrograms
	before uint64
	last   uint64
}

func (k *Kernel) missesSince(keys []string) *misses {
	var n misses
	n.add(k, keys)
	return &n
}

// add counts the programs behind these keys too, from now on.
func (n *misses) add(k *Kernel, keys []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range keys {
		if a := k.shared[key]; a != nil {
			s := a.closer.(*syscallPrograms)
			n.used, n.before = append(n.used, s), n.before+s.missed()
		}
	}
}

// installCounted is install of a rule with what attach attaches; it counts how often the kernel skips the programs behind the
// keys that attach gives. rest, if it is not nil, may add to them.
func (k *Kernel) installCounted(hook Hook, t Target, r Rule, attach func() (io.Closer, []string, error), rest func(*misses) ([]func() error, error)) (*Installed, error) {
	var missed *misses
	var more attachFunc
	if rest != nil {
		more = func() ([]func() error, error) { return rest(missed) }
	}
	in, err := k.install(hook, t, r, func() ([]func() error, error) {
		attached, keys, err := attach()
		if err != nil {
			return nil, err
		}
		missed = k.missesSince(keys)
		return []func() error{func() error {
			missed.finish()
			return attached.Close()
		}}, nil
	}, more)
	if err != nil {
		return nil, err
	}
	in.missed = missed
	return in, nil
}

func (n *misses) sum() (sum uint64) {
	for _, s := range n.used {
		sum += s.missed()
	}
	return sum
}

// count is how many there were; after finish, how many there were by then.
func (n *misses) count() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.used != nil {
		n.last = n.sum() - n.before
	}
	return n.last
}

// finish counts for the last time: the programs are about to be closed.
func (n *misses) finish() {
	n.count()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used = nil
}
