package burn_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/burn"
	"faultd/test/cgrouptest"
	"faultd/test/kerneltest"
)

// TestMain is also the burners.
func TestMain(m *testing.M) {
	if burn.IsBurner(os.Args) {
		if burn.Run(os.Args) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, k *bpf.Kernel, work burn.Work) (*burn.Process, error) {
	t.Helper()
	tree, target := cgrouptest.New(t)
	dir, err := os.Open(tree.Dir(target))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p, err := burn.Start(burn.Options{Work: work, Cgroup: dir, Kernel: k, Generation: k.Switch().Generation(), Until: time.Now().Add(time.Hour)})
	if err == nil {
		t.Cleanup(func() {
			p.Kill()
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

// patience is for a broken kernel or test.
const patience = 2 * time.Minute

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come: %s", what)
		}
	}
}

func works(t *testing.T) map[string]burn.Work {
	works := map[string]burn.Work{
		"cpu": {Threads: 2}, "memory": {Bytes: 4 << 20}, "shared": {Bytes: 4 << 20, Shared: true}, "locked": {Bytes: 4 << 20, Locked: true}, "threads": {IdleThreads: 64},
		"files": {Files: 64},
	}
	namespace, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	works["connections"] = burn.Work{Connections: &burn.Connections{Namespace: namespace, Server: netip.MustParseAddrPort(listener.Addr().String()), Most: 64}}
	works["ports"] = burn.Work{Ports: &burn.Ports{Namespace: namespace, Peer: netip.MustParseAddrPort("127.0.0.1:1"), Most: 64}}
	cache, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	if err := cache.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	works["cache"] = burn.Work{Bytes: 4 << 20, Cache: cache}
	for _, op := range []string{burn.OpRead, burn.OpWrite, burn.OpFsync} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		works[op] = burn.Work{IO: &burn.IO{File: f, Op: op, Random: op == burn.OpWrite, Block: 4 << 10, Size: 64 << 10}}
	}
	return works
}

// enough is what a work has done once it is at it.
func enough(w burn.Work) int64 {
	switch {
	case w.IO != nil:
		return 20
	case w.IdleThreads > 0:
		return w.IdleThreads
	case w.Files > 0:
		return w.Files
	case w.Ports != nil:
		return w.Ports.Most
	case w.Connections != nil:
		return w.Connections.Most
	}
	return 1 << 20
}

// TestEndsByItself: nobody kills it, and it ends by the switch, another generation, the lease and the deadline.
func TestEndsByItself(t *testing.T) {
	for name, end := range map[string]func(*bpf.Kernel, *burn.Process){
		"switch":     func(k *bpf.Kernel, _ *burn.Process) { k.Switch().Kill() },
		"generation": func(k *bpf.Kernel, _ *burn.Process) { k.Switch().Arm() },
		"lease":      func(k *bpf.Kernel, _ *burn.Process) { k.RenewLease(0) },
		"deadline":   func(_ *bpf.Kernel, p *burn.Process) { p.Extend(time.Now()) },
	} {
		for kind, work := range works(t) {
			t.Run(name+" "+kind, func(t *testing.T) {
				k := kerneltest.Open(t)
				p, err := start(t, k, work)
				if err != nil {
					t.Fatal(err)
				}
				p.Want(1 << 20)
				until(t, "it burns", func() bool { return p.Done() >= enough(work) })
				end(k, p)
				select {
				case <-p.Ended():
				case <-time.After(patience):
					t.Fatal("it goes on")
				}
				if p.Failed() {
					t.Errorf("it ended by %s", p.How())
				}
			})
		}
	}
}

// TestDoesWhatIsWanted: nothing before it is told, more, and less.
func TestDoesWhatIsWanted(t *testing.T) {
	for kind, work := range works(t) {
		k := kerneltest.Open(t)
		p, err := start(t, k, work)
		if err != nil {
			t.Fatal(err)
		}
		if p.Done() != 0 {
			t.Errorf("%s: it began by itself", kind)
		}
		if work.IO != nil {
			p.Want(1e6)
			until(t, "it works", func() bool { return p.Done() >= 20 })
			if asked := p.Asked(); asked < 20 || p.FailedOperations() > 0 {
				t.Errorf("%s: %d were asked for, %d failed", kind, asked, p.FailedOperations())
			}
			continue
		}
		if of := map[string]string{"threads": "task", "files": "fd", "ports": "fd", "connections": "fd"}[kind]; of != "" {
			for _, n := range []int64{10, 64} {
				p.Want(n)
				until(t, "it holds "+kind, func() bool { return p.Done() == n })
				if there, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", p.PID(), of)); err != nil || len(there) <= int(n) {
					t.Errorf("of %d %s there are %d, %v", n, kind, len(there), err)
				}
			}
			continue
		}
		if kind == "cpu" {
			p.Want(200_000)
			until(t, "it burns", func() bool { return p.Done() >= int64(20*time.Millisecond) })
			if p.Asked() == 0 {
				t.Error("nothing was asked")
			}
			continue
		}
		for _, bytes := range []int64{4 << 20, 1 << 20, 3 << 20} {
			p.Want(bytes)
			until(t, kind, func() bool { return p.Done() == bytes })
		}
	}
}

// TestRefuses says why it cannot start.
func TestRefuses(t *testing.T) {
	k := kerneltest.Open(t)
	if p, err := start(t, k, burn.Work{Threads: 1, CPUs: []int{1000}}); err == nil {
		t.Errorf("it started on a processor that is not there: %d", p.PID())
	}
	if p, err := start(t, k, burn.Work{Bytes: 1 << 60}); err == nil {
		t.Errorf("it has more addresses than there are: %d", p.PID())
	}
}

// TestGoesBeforeOthers looks at a real-time load that has no order yet.
func TestGoesBeforeOthers(t *testing.T) {
	k := kerneltest.Open(t)
	p, err := start(t, k, burn.Work{Threads: 1, RealTime: true})
	if err != nil {
		t.Fatal(err)
	}
	if attr, err := unix.SchedGetAttr(p.PID(), 0); err != nil || attr.Policy != unix.SCHED_FIFO || attr.Priority != 1 {
		t.Errorf("it is scheduled as %v, %v", attr, err)
	}
}
