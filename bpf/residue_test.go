package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"faultd/test/cgrouptest"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// plantedName is that of everything planted here.
const plantedName = "faultd_planted"

// planted gives the lines of the residue that name what the tests plant.
func planted(t *testing.T, pinDir string, daemonLives bool) []string {
	t.Helper()
	found, err := Residue(pinDir, daemonLives)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found, func(line string) bool { return !strings.Contains(line, plantedName) })
}

// wantPlanted waits for the residue to name exactly these sorts of planted things: the kernel frees things a moment after their last user.
func wantPlanted(t *testing.T, pinDir string, daemonLives bool, sorts ...string) {
	t.Helper()
	var found []string
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var got []string
		found = planted(t, pinDir, daemonLives)
		for _, line := range found {
			got = append(got, strings.Fields(line)[0])
		}
		slices.Sort(got)
		if slices.Equal(got, sorts) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %q, want one of each of %q", found, sorts)
		}
	}
}

func plantProgram(t *testing.T, programType ebpf.ProgramType) *ebpf.Program {
	t.Helper()
	requireRoot(t)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: plantedName, Type: programType, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func plantMap(t *testing.T) *ebpf.Map {
	t.Helper()
	requireRoot(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: plantedName, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// pinHome is a place for pins; it goes with the test.
func pinHome(t *testing.T) string {
	t.Helper()
	requireRoot(t)
	dir := fmt.Sprintf("/sys/fs/bpf/faultd-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	cgrouptest.Keep(t, dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestResidueNamesAProgram(t *testing.T) {
	p := plantProgram(t, ebpf.SocketFilter)
	for _, daemonLives := range []bool{false, true} {
		wantPlanted(t, "", daemonLives, "program")
	}
	p.Close()
	wantPlanted(t, "", false)
}

func TestResidueNamesAMap(t *testing.T) {
	m := plantMap(t)
	wantPlanted(t, "", false, "map")
	wantPlanted(t, "", true) // the daemon's own
	m.Close()
	wantPlanted(t, "", false)
}

func TestResidueNamesALink(t *testing.T) {
	p := plantProgram(t, ebpf.CGroupSKB)
	dir, err := os.MkdirTemp(cgroupRoot(), "faultd-test-")
	if err != nil {
		t.Fatal(err)
	}
	cgrouptest.Keep(t, dir)
	defer os.Remove(dir)
	cgroup, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p, Attach: ebpf.AttachCGroupInetEgress})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pins := pinHome(t)
	pin := filepath.Join(pins, "other")
	if err := l.Pin(pin); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	wantPlanted(t, pins, false, "link", "program")
	if found, err := Residue(pins, false); err != nil || !slices.Contains(found, "pin "+pin) {
		t.Errorf("the pin is not among %q, %v", found, err)
	}
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	wantPlanted(t, pins, false)
	if found, err := Residue(pins, false); err != nil || slices.Contains(found, "pin "+pin) {
		t.Errorf("the pin is still among %q, %v", found, err)
	}
}

// TestResidueLeavesWhatIsOwned: a process that lives holds them, such as another daemon with its faults.
func TestResidueLeavesWhatIsOwned(t *testing.T) {
	p, m := plantProgram(t, ebpf.SocketFilter), plantMap(t)
	owner := exec.Command("cat")
	for _, fd := range []int{p.FD(), m.FD()} {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(copied), "planted")
		defer f.Close()
		owner.ExtraFiles = append(owner.ExtraFiles, f)
	}
	in, err := owner.StdinPipe()
	if err == nil {
		err = owner.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	wantPlanted(t, "", false)
	if err := errors.Join(in.Close(), owner.Wait()); err != nil {
		t.Fatal(err)
	}
	wantPlanted(t, "", false, "map", "program")
}

func TestResidueNamesAFilter(t *testing.T) {
	for name, parent := range map[string]uint32{"egress": netlink.HANDLE_MIN_EGRESS, "ingress": netlink.HANDLE_MIN_INGRESS} {
		t.Run(name, func(t *testing.T) {
			p := plantProgram(t, ebpf.SchedCLS)
			handle, lo := newNetNS(t)
			err := handle.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("this kernel has no clsact qdisc, so no filter can be left")
			}
			if err != nil {
				t.Fatal(err)
			}
			filter := &netlink.BpfFilter{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: lo.Attrs().Index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
				Fd:          p.FD(), Name: plantedName, DirectAction: true,
			}
			if err := handle.FilterAdd(filter); err != nil {
				t.Fatal(err)
			}
			p.Close()
			wantPlanted(t, "", false, "filter", "program")
			removed, err := RemoveFilters()
			if err != nil || !slices.ContainsFunc(removed, func(line string) bool { return strings.Contains(line, plantedName) }) {
				t.Errorf("removed %q, %v", removed, err)
			}
			wantPlanted(t, "", false)
		})
	}
}

// newNetNS makes a network namespace that no process is in, and gives its netlink and its loopback device.
func newNetNS(t *testing.T) (*netlink.Handle, netlink.Link) {
	t.Helper()
	requireRoot(t)
	name := fmt.Sprintf("faultd-test-%d", time.Now().UnixNano())
	made := make(chan error, 1)
	var ns netns.NsHandle
	go func() {
		// The thread is in the new namespace and must end with this goroutine: it is not unlocked.
		runtime.LockOSThread()
		var err error
		ns, err = netns.NewNamed(name)
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ns.Close(), netns.DeleteNamed(name)); err != nil {
			t.Error(err)
		}
	})
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handle.Close)
	lo, err := handle.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return handle, lo
}
