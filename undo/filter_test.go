package undo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"faultd/test/cgrouptest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// onOwnThread runs f on a thread of its own, and returns once that has ended. It is never the process's first, which the runtime parks for
// ever instead of ending it (runtime/proc.go, mexit), in whatever namespace it is.
func onOwnThread(f func()) {
	ended := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if tid := unix.Gettid(); tid != unix.Getpid() {
			f()
			ended <- tid
			return
		}
		onOwnThread(f) // nobody else comes to the first thread meanwhile
		runtime.UnlockOSThread()
		ended <- 0
	}()
	for task := fmt.Sprintf("/proc/self/task/%d", <-ended); ; runtime.Gosched() {
		if _, err := os.Stat(task); err != nil {
			return
		}
	}
}

// network is a network namespace of a test: only lo is in it.
type network struct {
	*netlink.Handle
	inode   uint64
	lo      netlink.Link
	program *ebpf.Program
	// leave lets go of the namespace.
	leave func()
}

// testNetwork makes a network namespace that one thread of this process is in, and nobody else.
func testNetwork(t *testing.T) *network {
	t.Helper()
	cgrouptest.RequireRoot(t)
	n := &network{}
	ready, end, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		onOwnThread(func() {
			ready <- n.enter()
			<-end
		})
	}()
	left := false
	n.leave = func() {
		if !left {
			left = true
			close(end)
			<-ended
		}
	}
	t.Cleanup(n.leave)
	if err := <-ready; err != nil {
		t.Skipf("no network namespace can be made: %v", err)
	}
	t.Cleanup(n.Close)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TC_ACT_UNSPEC
	})
	if err != nil {
		t.Skipf("no BPF program can be loaded: %v", err)
	}
	n.program = program
	t.Cleanup(func() { program.Close() })
	return n
}

func (n *network) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	ns, err := netns.Get()
	if err != nil {
		return err
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return err
	}
	n.inode = st.Ino
	if n.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	n.lo, err = n.LinkByName("lo")
	return err
}

func (n *network) addQdisc(t *testing.T) {
	t.Helper()
	if err := n.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: n.lo.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}); err != nil {
		t.Fatal(err)
	}
}

func (n *network) addFilter(t *testing.T, r *RemoveFilter) {
	t.Helper()
	if err := n.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: r.Ifindex, Parent: r.Parent, Handle: r.Handle, Priority: r.Priority, Protocol: unix.ETH_P_ALL},
		Fd:          n.program.FD(), Name: r.Name, DirectAction: true,
	}); err != nil {
		t.Fatal(err)
	}
}

// want says which filters are left, by name, and whether the qdisc is.
func (n *network) want(t *testing.T, qdisc bool, filters ...string) {
	t.Helper()
	var names []string
	for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		found, err := listFilters(n.Handle, n.lo, parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names = append(names, f.(*netlink.BpfFilter).Name)
		}
	}
	qdiscs, err := n.QdiscList(n.lo)
	if err != nil {
		t.Fatal(err)
	}
	has := false
	for _, q := range qdiscs {
		has = has || q.Type() == "clsact"
	}
	if has != qdisc || len(names) != len(filters) {
		t.Fatalf("clsact %v with filters %q, want %v with %q", has, names, qdisc, filters)
	}
	for i := range names {
		if names[i] != filters[i] {
			t.Fatalf("filters %q, want %q", names, filters)
		}
	}
}

func (n *network) ours(owns bool) *RemoveFilter {
	return &RemoveFilter{NetNSInode: n.inode, Ifindex: n.lo.Attrs().Index, Ifname: "lo", Parent: netlink.HANDLE_MIN_EGRESS,
		Handle: 0xfa, Priority: 77, Name: "faultd", OwnsQdisc: owns}
}

func filterAction(r *RemoveFilter) Action { return Action{Version: Version, RemoveFilter: r} }

func TestRemoveFilterAndQdisc(t *testing.T) {
	n := testNetwork(t)
	r := n.ours(true)
	wantUndo(t, filterAction(r), AlreadyGone) // written down, nothing done yet
	n.addQdisc(t)
	wantUndo(t, filterAction(r), Undone) // the qdisc made, the filter not yet
	n.want(t, false)
	n.addQdisc(t)
	n.addFilter(t, r)
	n.want(t, true, "faultd")
	wantUndo(t, filterAction(r), Undone)
	n.want(t, false)
	wantUndo(t, filterAction(r), AlreadyGone)
}

func TestRemoveFilterKeepsTheQdiscOfOthers(t *testing.T) {
	n := testNetwork(t)
	n.addQdisc(t)
	r := n.ours(false)
	n.addFilter(t, r)
	wantUndo(t, filterAction(r), Undone)
	n.want(t, true)
}

func TestRemoveFilterKeepsTheFiltersOfOthers(t *testing.T) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		n := testNetwork(t)
		n.addQdisc(t)
		r := n.ours(true)
		n.addFilter(t, r)
		theirs := *r
		theirs.Parent, theirs.Priority, theirs.Name = parent, 78, "theirs"
		n.addFilter(t, &theirs)
		wantUndo(t, filterAction(r), Undone)
		n.want(t, true, "theirs")
		wantUndo(t, filterAction(r), AlreadyGone)
		n.want(t, true, "theirs")
	}
}

func TestRemoveFilterInOurPlace(t *testing.T) {
	n := testNetwork(t)
	n.addQdisc(t)
	r := n.ours(true)
	theirs := *r
	theirs.Name = "theirs"
	n.addFilter(t, &theirs)
	wantUndo(t, filterAction(r), Changed)
	n.want(t, true, "theirs")
}

func TestRemoveFilterOfADeviceThatIsGone(t *testing.T) {
	n := testNetwork(t)
	r := n.ours(true)
	r.Ifindex = 1000
	wantUndo(t, filterAction(r), AlreadyGone)
}

func TestRemoveFilterOfANamespaceThatIsGone(t *testing.T) {
	n := testNetwork(t)
	r := n.ours(true)
	n.Close() // a socket keeps its namespace
	n.leave()
	wantUndo(t, filterAction(r), AlreadyGone)
}

// TestMountedNamespace: it is found without any process in it, as CNI leaves it.
func TestMountedNamespace(t *testing.T) {
	n := testNetwork(t)
	found, err := openNetNS(n.inode)
	if err != nil || found == nil {
		t.Fatalf("not found by its thread: %v", err)
	}
	path := filepath.Join(t.TempDir(), "a name")
	write(t, path, "")
	err = unix.Mount("/proc/self/fd/"+itoa(int(found.Fd())), path, "", unix.MS_BIND, "")
	found.Close()
	if err != nil {
		t.Skipf("nothing can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	n.leave()
	if found, err = openNetNS(n.inode); err != nil || found == nil {
		t.Fatalf("not found by its mount: %v", err)
	}
	found.Close()
}

// TestHeldNamespace: it is found without any process in it and without a mount, as long as somebody holds it open.
func TestHeldNamespace(t *testing.T) {
	n := testNetwork(t)
	held, err := openNetNS(n.inode)
	if err != nil || held == nil {
		t.Fatalf("not found by its thread: %v", err)
	}
	n.Close()
	n.leave()
	found, err := openNetNS(n.inode)
	if err != nil || found == nil {
		t.Fatalf("not found by its descriptor: %v", err)
	}
	found.Close()
	held.Close()
	if found, err = openNetNS(n.inode); err != nil || found != nil {
		t.Errorf("found after all had let go: %v, %v", found, err)
	}
}

// TestUncertainIsNotGone: if not everything could be looked at, a namespace must not be called gone.
func TestUncertainIsNotGone(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 0 // nothing more can be opened
	a := filterAction(&RemoveFilter{NetNSInode: 1, Ifindex: 1, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Name: "n"})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Skipf("no limit can be set: %v", err)
	}
	outcome, undoErr := a.Undo(context.Background())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if undoErr == nil {
		t.Errorf("undoing came to %q without a file descriptor to look with", outcome)
	}
	wantUndo(t, a, AlreadyGone)
}
