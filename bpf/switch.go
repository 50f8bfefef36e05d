package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// DefaultPinDir is where the kill switch is pinned.
const DefaultPinDir = "/sys/fs/bpf/faultd"

// SwitchPin is the name of the pinned switch in its directory.
const SwitchPin = "kill"

// bpffsMagic is BPF_FS_MAGIC of linux/magic.h.
const bpffsMagic = 0xcafe4a11

// Switch is the kill switch: one word in a pinned map that every program reads before it does harm. 0 is harmless,
// anything else is the armed generation, which a rule must carry. Its form is frozen for ever.
type Switch struct {
	kill *ebpf.Map
	page page
	// fresh: this call made the map, there was no pin.
	fresh bool
}

// OpenSwitch opens the pinned switch of a running or dead daemon. Without one: an error that wraps os.ErrNotExist.
// The caller closes it.
func OpenSwitch(pinDir string) (*Switch, error) {
	kill, err := ebpf.LoadPinnedMap(filepath.Join(pinDir, SwitchPin), nil)
	if err != nil {
		return nil, fmt.Errorf("open the kill switch in %s: %w", pinDir, err)
	}
	return newSwitch(kill)
}

func newSwitch(kill *ebpf.Map) (*Switch, error) {
	if kill.Type() != ebpf.Array || kill.ValueSize() != 8 || kill.Flags()&unix.BPF_F_MMAPABLE == 0 {
		kill.Close()
		return nil, fmt.Errorf("open the kill switch: the pinned map is a %s of %d bytes and not faultd's", kill.Type(), kill.ValueSize())
	}
	page, err := mapPage(kill)
	if err != nil {
		kill.Close()
		return nil, err
	}
	return &Switch{kill: kill, page: page}, nil
}

// createSwitch opens the pinned switch, or makes and pins one that is killed.
func createSwitch(pinDir string) (*Switch, error) {
	if err := ensureBPFFS(pinDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(pinDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the pin directory: %w", err)
	}
	s, err := OpenSwitch(pinDir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return s, err
	}
	spec, err := loadShared()
	if err != nil {
		return nil, fmt.Errorf("read the shared maps: %w", err)
	}
	kill, err := ebpf.NewMap(spec.Maps["faultd_kill"])
	if err != nil {
		return nil, fmt.Errorf("make the kill switch: %w", err)
	}
	if err := kill.Pin(filepath.Join(pinDir, SwitchPin)); err != nil {
		kill.Close()
		return nil, fmt.Errorf("pin the kill switch: %w", err)
	}
	s, err = newSwitch(kill)
	if err == nil {
		s.fresh = true
	}
	return s, err
}

// ensureBPFFS mounts the BPF file system at its standard place if nobody has; it is the one mount that stays, as the
// home of the one pin.
func ensureBPFFS(pinDir string) error {
	const standard = "/sys/fs/bpf"
	var fs unix.Statfs_t
	parent := filepath.Dir(filepath.Clean(pinDir))
	if err := unix.Statfs(parent, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", parent, err)
	}
	if uint32(fs.Type) == bpffsMagic {
		return nil
	}
	if parent != standard {
		return fmt.Errorf("use pin directory %s: it lies on no BPF file system; choose one below %s, or mount one there: mount -t bpf bpf %s", pinDir, standard, parent)
	}
	if err := unix.Mount("bpf", standard, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount the BPF file system at %s: %w", standard, err)
	}
	return nil
}

// Generation is the armed generation, or 0 after a kill.
func (s *Switch) Generation() uint64 { return s.page.word(0).Load() }

// Kill makes every rule harmless, at once and without a system call.
func (s *Switch) Kill() { s.page.word(0).Store(0) }

// Arm moves to a new generation: rules of earlier ones stay harmless for ever.
func (s *Switch) Arm() uint64 {
	generation := uint64(Monotonic())
	s.page.word(0).Store(generation)
	return generation
}

// Renew moves on from a generation, so that rules of it never come back, and gives the new one; 0: the switch is not at the old one any
// more, be it killed or armed since, and stays as it is.
func (s *Switch) Renew(old uint64) uint64 {
	generation := uint64(Monotonic())
	if old == 0 || !s.page.word(0).CompareAndSwap(old, generation) {
		return 0
	}
	return generation
}

// Fresh says whether there was no pinned switch before, as after a boot.
func (s *Switch) Fresh() bool { return s.fresh }

// Close lets go of the map; the pin stays.
func (s *Switch) Close() error { return errors.Join(s.page.close(), s.kill.Close()) }

// RemoveSwitch takes the pin away, for an uninstall.
func RemoveSwitch(pinDir string) error {
	err := os.RemoveAll(pinDir)
	if err != nil {
		return fmt.Errorf("remove the kill switch: %w", err)
	}
	return nil
}
