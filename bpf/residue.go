package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const namePrefix = "faultd_"

// object is something of faultd's in the kernel. Processes may hold it, under keys that owners knows.
type object struct {
	keys []string
	text string
}

// Residue lists the programs, links, maps, filters, root qdiscs, network devices and pins of faultd in this kernel that belong to no living process. What this
// process holds counts as left, but for the maps of a living daemon: those it has while it is idle too. The pinned kill switch is
// no residue. A clsact qdisc without filters is not looked at: nobody can tell whose it is; the journal knows of ours.
func Residue(pinDir string, daemonLives bool) ([]string, error) {
	objects, err := residueObjects()
	if err != nil {
		return nil, err
	}
	found := withoutOwner(objects, daemonLives)
	pins, err := os.ReadDir(pinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the pins: %w", err)
	}
	for _, pin := range pins {
		if pin.Name() != SwitchPin {
			found = append(found, "pin "+filepath.Join(pinDir, pin.Name()))
		}
	}
	return found, nil
}

// withoutOwner looks at the processes only if there is anything to be owned.
func withoutOwner(objects []object, daemonLives bool) (found []string) {
	if len(objects) == 0 {
		return nil
	}
	owned := heldByOthers()
	if daemonLives {
		for key := range heldBy(os.Getpid()) {
			owned[key] = owned[key] || strings.HasPrefix(key, mapKey)
		}
	}
	for _, o := range objects {
		if !slices.ContainsFunc(o.keys, func(key string) bool { return owned[key] }) {
			found = append(found, o.text)
		}
	}
	return found
}

func residueObjects() ([]object, error) {
	programs, err := residuePrograms()
	if err != nil {
		return nil, err
	}
	links, err := residueLinks(programs)
	if err != nil {
		return nil, err
	}
	maps, err := residueMaps()
	if err != nil {
		return nil, err
	}
	objects := append(links, maps...)
	for id, name := range programs {
		objects = append(objects, object{[]string{key(programKey, uint32(id))}, fmt.Sprintf("program %s (id %d)", name, id)})
	}
	qdiscs, err := residueQdiscs(programs)
	if err != nil {
		return nil, err
	}
	objects = append(objects, qdiscs...)
	devices, err := residueDevices(programs)
	if err != nil {
		return nil, err
	}
	objects = append(objects, devices...)
	filters, err := residueFilters()
	for _, f := range filters {
		objects = append(objects, object{[]string{key(programKey, uint32(f.filter.Id))}, f.String()})
	}
	return objects, err
}

func residuePrograms() (map[ebpf.ProgramID]string, error) {
	found := map[ebpf.ProgramID]string{}
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
			found[id] = info.Name
		}
		program.Close()
	}
}

// residueLinks are those of our programs; a link has no name. One that is just being made has a number and cannot be opened
// (EAGAIN), so the list is begun anew, for as long as making one may take.
func residueLinks(programs map[ebpf.ProgramID]string) (found []object, err error) {
	for deadline := time.Now().Add(linkPatience); ; time.Sleep(time.Millisecond) {
		found, err = listLinks(programs)
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return nil, fmt.Errorf("list the links: %w", err)
		}
	}
}

const linkPatience = 5 * time.Second

func listLinks(programs map[ebpf.ProgramID]string) (found []object, err error) {
	var links link.Iterator
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil {
			continue // not every type of link tells
		}
		if name, ours := programs[info.Program]; ours {
			found = append(found, object{[]string{key(linkKey, uint32(info.ID))}, fmt.Sprintf("link of %s (id %d)", name, info.ID)})
		}
	}
	return found, links.Err()
}

// residueMaps leaves switches out: one that is neither pinned nor held by a process cannot be.
func residueMaps() (found []object, err error) {
	for id := ebpf.MapID(0); ; {
		if id, err = ebpf.MapGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the maps: %w", err)
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if info, err := m.Info(); err == nil && info.Name != namePrefix+SwitchPin && strings.HasPrefix(info.Name, namePrefix) {
			found = append(found, object{[]string{key(mapKey, uint32(id))}, fmt.Sprintf("map %s (id %d)", info.Name, id)})
		}
		m.Close()
	}
}
