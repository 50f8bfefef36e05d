package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const namePrefix = "faultd_"

// Residue lists programs, pins and filters of faultd in this kernel, and the maps unless a living daemon owns them.
// The pinned kill switch is no residue.
func Residue(pinDir string, daemonLives bool) ([]string, error) {
	found, err := residuePrograms()
	if err != nil {
		return nil, err
	}
	if !daemonLives {
		maps, err := residueMaps()
		if err != nil {
			return nil, err
		}
		found = append(found, maps...)
	}
	pins, err := os.ReadDir(pinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the pins: %w", err)
	}
	for _, pin := range pins {
		if pin.Name() != killPin {
			found = append(found, "pin "+filepath.Join(pinDir, pin.Name()))
		}
	}
	filters, err := residueFilters()
	return append(found, filters...), err
}

func residuePrograms() ([]string, error) {
	var found []string
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the programs: %w", err)
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // it was unloaded
		}
		if info, err := program.Info(); err == nil && strings.HasPrefix(info.Name, namePrefix) {
			found = append(found, fmt.Sprintf("program %s (id %d)", info.Name, id))
		}
		program.Close()
	}
}

// residueMaps leaves switches out: one that is neither pinned nor held by a process cannot be.
func residueMaps() ([]string, error) {
	var found []string
	for id := ebpf.MapID(0); ; {
		var err error
		if id, err = ebpf.MapGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the maps: %w", err)
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if info, err := m.Info(); err == nil && info.Name != namePrefix+killPin && strings.HasPrefix(info.Name, namePrefix) {
			found = append(found, fmt.Sprintf("map %s (id %d)", info.Name, id))
		}
		m.Close()
	}
}

// residueFilters looks at the network namespaces of all processes and at the named ones.
func residueFilters() ([]string, error) {
	seen := map[uint64]bool{}
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/run/netns/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("list the network namespaces: %w", err)
		}
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) != nil || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			found = append(found, filtersIn(p)...)
		}
	}
	return found, nil
}

func filtersIn(namespace string) []string {
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return nil // its process ended
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer handle.Close()
	devices, _ := handle.LinkList()
	var found []string
	for _, device := range devices {
		filters, _ := handle.FilterList(device, netlink.HANDLE_MIN_EGRESS)
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, namePrefix) {
				found = append(found, fmt.Sprintf("filter %s on %s in %s", b.Name, device.Attrs().Name, namespace))
			}
		}
	}
	return found
}
