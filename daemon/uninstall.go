package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"faultd/audit"
	"faultd/bpf"
	"faultd/history"
	"faultd/undo"
)

// Uninstall undoes and removes what faultd, of this version or an older one, left on this node: processes whose daemon is gone,
// journalled changes, filters, qdiscs, network devices, cgroups, the socket, the pins and the state directory. It refuses while a daemon uses the state or
// the socket. A change that cannot be undone ends it, with the journal still there. say gets a line for each thing.
func Uninstall(ctx context.Context, pinDir, stateDir, socket string, say func(string)) error {
	if err := checkPins(pinDir); err != nil {
		return err
	}
	locks, err := takeFromDaemon(pinDir, stateDir, socket)
	if err != nil {
		return err
	}
	defer locks.Close()
	if err := errors.Join(killOrphans(ctx, say), replayAll(ctx, stateDir, say)); err != nil {
		return err
	}
	filters, err := bpf.RemoveFilters()
	qdiscs, qdiscErr := bpf.RemoveQdiscs()
	devices, deviceErr := bpf.RemoveDevices()
	for _, what := range slices.Concat(filters, qdiscs, devices) {
		say("removed " + what)
	}
	if err := errors.Join(err, qdiscErr, deviceErr, removeCgroups(say), removeSockets(stateDir, socket, say), bpf.RemoveSwitch(pinDir)); err != nil {
		return err
	}
	if err := removeState(stateDir); err != nil {
		return err
	}
	left, err := Residue(pinDir, stateDir, false)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("remove everything: still there: %q", left)
	}
	return err
}

// locks are what a running daemon has locked.
type locks []*os.File

// Close lets a daemon start.
func (l locks) Close() {
	for _, f := range l {
		f.Close()
	}
}

// takeFromDaemon gives the locks of the state and of the switch, so that no daemon starts meanwhile.
func takeFromDaemon(pinDir, stateDir, socket string) (taken locks, err error) {
	const advice = "stop the daemon first: systemctl stop faultd"
	if answered(socket) {
		return nil, fmt.Errorf("%s (one answers on %s)", advice, socket)
	}
	pins, err := lockPins(pinDir)
	switch {
	case err == nil:
		taken = locks{pins}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s (%w)", advice, err)
	}
	state, err := lockState(stateDir)
	if err != nil {
		taken.Close()
		return nil, fmt.Errorf("%s (%w)", advice, err)
	}
	return append(taken, state), nil
}

// killOrphans goes on until there are none: a holder is one once its guard is gone.
func killOrphans(ctx context.Context, say func(string)) error {
	for deadline := time.Now().Add(settleTime); ; {
		orphans := 0
		for _, p := range ownProcesses() {
			if !p.orphan {
				continue
			}
			orphans++
			kill := undo.Action{Version: undo.Version, KillProcess: &undo.KillProcess{PID: p.pid, StartTime: p.start}}
			if _, err := kill.Undo(ctx); err != nil {
				return err
			}
			say("killed " + p.String())
		}
		if orphans == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("kill the processes of a daemon that is gone: there are always more")
		}
	}
}

func replayAll(ctx context.Context, stateDir string, say func(string)) error {
	results, err := undo.Replay(ctx, stateDir, nil)
	for _, r := range results {
		say(fmt.Sprintf("fault %s: %s", r.Entry.Fault, r.Outcome))
		err = errors.Join(err, r.Err)
	}
	if errors.As(err, new(*undo.CorruptError)) {
		err = fmt.Errorf("%w; look what is left with faultd check --residue, take %s away, and uninstall again", err, undo.Path(stateDir))
	}
	return err
}

func removeCgroups(say func(string)) error {
	dirs, err := residueCgroups(ownProcesses())
	for _, dir := range dirs {
		if e := os.Remove(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", dir, e))
			continue
		}
		say("removed cgroup " + dir)
	}
	return err
}

// removeSockets takes the socket that was named, the one that the last daemon had, and what was to become one. One on which somebody
// listens is another daemon's by now.
func removeSockets(stateDir, socket string, say func(string)) (err error) {
	for _, dir := range halfMadeSockets(stateDir) {
		err = errors.Join(err, os.RemoveAll(dir))
		say("removed " + dir)
	}
	for _, path := range []string{socket, notedSocket(stateDir)} {
		info, e := os.Lstat(path)
		if e != nil || info.Mode()&fs.ModeSocket == 0 || answered(path) {
			continue
		}
		err = errors.Join(err, os.Remove(path))
		say("removed socket " + path)
	}
	return err
}

// checkPins refuses a directory that is taken away with all in it, as an older version may have pinned more there, unless faultd made it: it must
// lie on a BPF file system, not be the whole of it, and have the switch, if it has anything.
func checkPins(pinDir string) error {
	pins, err := os.ReadDir(pinDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the pins: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(filepath.Clean(pinDir)), &st); err != nil || uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("remove the pins: %s is no directory within a BPF file system, so faultd did not make it", pinDir)
	}
	if ours := func(pin fs.DirEntry) bool { return pin.Name() == bpf.SwitchPin }; len(pins) > 0 && !slices.ContainsFunc(pins, ours) {
		return fmt.Errorf("remove the pins: %s has no kill switch of faultd's in it, so they are somebody else's", pinDir)
	}
	return nil
}

// removeState removes the files that faultd makes, and then the directory, if nothing else is in it.
func removeState(stateDir string) error {
	if err := undo.Remove(stateDir); err != nil {
		return err
	}
	for _, name := range []string{latchName, socketNote, audit.FileName, budgetName, budgetName + ".new", history.FileName, lockName} {
		if err := removeIfThere(filepath.Join(stateDir, name)); err != nil {
			return fmt.Errorf("remove the state: %w", err)
		}
	}
	if err := os.Remove(stateDir); err != nil {
		return fmt.Errorf("remove the state directory, of which only faultd's own files were removed: %w", err)
	}
	return nil
}
