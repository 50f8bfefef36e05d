package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/mounts"
	"faultd/undo"
)

// Residue lists what faultd may have left on this node and nobody answers for any more: programs, links, maps, pins, filters, root
// qdiscs and network devices in the kernel; mounts; guards, holders, canaries and burners whose daemon is gone; their cgroups; half-made sockets; journalled changes that
// are not undone. The pinned kill switch is no residue, and neither is what belongs to a living daemon: this process, with
// daemonLives, or another one. The kernel frees programs and maps a grace period after their last user, so what is found is
// looked at again for settleTime before it counts.
func Residue(pinDir, stateDir string, daemonLives bool) ([]string, error) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(settleTime / 50) {
		found, err := residueNow(pinDir, stateDir, daemonLives)
		if err != nil || len(found) == 0 || time.Now().After(deadline) {
			return found, err
		}
	}
}

const settleTime = 5 * time.Second

func residueNow(pinDir, stateDir string, daemonLives bool) ([]string, error) {
	found, err := bpf.Residue(pinDir, daemonLives)
	if err != nil {
		return nil, err
	}
	found = append(found, residueMounts()...)
	processes := ownProcesses()
	for _, p := range processes {
		if p.orphan {
			found = append(found, p.String())
		}
	}
	cgroups, err := residueCgroups(processes)
	if err != nil {
		return nil, err
	}
	for _, dir := range cgroups {
		found = append(found, "cgroup "+dir)
	}
	for _, dir := range halfMadeSockets(stateDir) {
		found = append(found, "directory "+dir)
	}
	pending, err := undo.Read(stateDir)
	if errors.As(err, new(*undo.CorruptError)) {
		found, err = append(found, err.Error()), nil
	}
	for _, e := range pending {
		if !writerLives(e) {
			found = append(found, fmt.Sprintf("journal entry %s of fault %s", e.ID, e.Fault))
		}
	}
	return found, err
}

// writerLives: the entry is of a fault of another daemon, which runs.
func writerLives(e undo.Entry) bool {
	start, err := undo.StartTime(e.PID)
	return err == nil && start == e.StartTime && e.PID != os.Getpid()
}

// residueMounts looks for attached file systems of the guard in every mount namespace that a process is in. The guard attaches none.
func residueMounts() (found []string) {
	seen := map[uint64]bool{}
	namespaces, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, namespace := range namespaces {
		var st unix.Stat_t
		if unix.Stat(namespace, &st) != nil || seen[st.Ino] {
			continue // its process ended, or we know it
		}
		seen[st.Ino] = true
		process := filepath.Base(filepath.Dir(filepath.Dir(namespace)))
		attached, _ := mounts.Of(process)
		for _, m := range attached {
			if m.Type == "fuse" && m.Source == "faultd" {
				found = append(found, fmt.Sprintf("mount %s in the mount namespace of process %s", m.Point, process))
			}
		}
	}
	return found
}

// Our cgroups lie below the root of the tree, but for those of burners, which lie in or beside their targets.
const (
	guardCgroupPrefix  = "faultd-guard-"
	canaryCgroupPrefix = "faultd-canary-"
)

// guardCgroups and canaryCgroups are the patterns of their names.
var (
	guardCgroups  = guardCgroupPrefix + strings.Repeat("[0-9a-f]", 8)
	canaryCgroups = canaryCgroupPrefix + "*"
)

// residueCgroups gives the directories of our cgroups in which nobody is, or only processes whose daemon is gone.
func residueCgroups(processes []ownProcess) (found []string, err error) {
	tree, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	orphans := map[string]bool{}
	for _, p := range processes {
		orphans[strconv.Itoa(p.pid)] = p.orphan
	}
	dirs, err := ownCgroups(tree)
	for _, dir := range dirs {
		members, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		inUse := slices.ContainsFunc(strings.Fields(string(members)), func(pid string) bool { return !orphans[pid] })
		if err == nil && !inUse {
			found = append(found, dir)
		}
	}
	return found, err
}

// ownCgroups are the directories that are ours by their names.
func ownCgroups(tree *cgroup.Hierarchy) (dirs []string, err error) {
	for _, pattern := range []string{guardCgroups, canaryCgroups} {
		found, err := filepath.Glob(filepath.Join(tree.Mount(), pattern))
		if err != nil {
			return nil, fmt.Errorf("list the cgroups of guards and canaries: %w", err)
		}
		dirs = append(dirs, found...)
	}
	err = filepath.WalkDir(tree.Mount(), func(dir string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), cgroup.BurnerPrefix):
			dirs = append(dirs, dir)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the cgroups of burners: %w", err)
	}
	return dirs, nil
}

// halfMadeSockets gives the private directories in which a daemon of this state died while it made its socket.
func halfMadeSockets(stateDir string) []string {
	socket := notedSocket(stateDir)
	if socket == "" {
		return nil
	}
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(socket), privatePrefix+"*"))
	return found
}
