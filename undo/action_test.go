package undo

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestBadActions(t *testing.T) {
	good := RemoveFilter{NetNSInode: 1, Ifindex: 1, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Name: "n"}
	filter := func(change func(*RemoveFilter)) Action {
		f := good
		change(&f)
		return Action{Version: 1, RemoveFilter: &f}
	}
	if err := filter(func(*RemoveFilter) {}).Validate(); err != nil {
		t.Error(err)
	}
	for _, a := range []Action{
		{}, {Version: 1},
		{Version: Version + 1, RemoveDir: &RemoveDir{Path: "/a"}},
		{Version: 1, RemoveDir: &RemoveDir{Path: "/a"}, RemoveFile: &RemoveFile{Path: "/a", Ino: 1}},
		{Version: 1, WriteFile: &WriteFile{Path: "a", Old: "1", New: "2"}},
		{Version: 1, WriteFile: &WriteFile{Path: "/a", New: "2"}},
		{Version: 1, WriteFile: &WriteFile{Path: "/a", Old: "1"}},
		{Version: 1, WriteFile: &WriteFile{Path: "/a", Old: "1", New: "2", Key: "8:0 8:1"}},
		{Version: 1, RemoveFile: &RemoveFile{Path: "/a"}},
		{Version: 1, RemoveFile: &RemoveFile{Path: "a", Ino: 1}},
		{Version: 1, RemoveDir: &RemoveDir{}},
		{Version: 1, KillProcess: &KillProcess{PID: 1, StartTime: 5}},
		{Version: 1, KillProcess: &KillProcess{PID: -5, StartTime: 5}},
		{Version: 1, KillProcess: &KillProcess{PID: 7}},
		{Version: 2, EmptyFile: &EmptyFile{StartTime: 1, FD: 3, Ino: 1}},
		{Version: 2, EmptyFile: &EmptyFile{PID: 7, FD: 3, Ino: 1}},
		{Version: 2, EmptyFile: &EmptyFile{PID: 7, StartTime: 1, FD: -1, Ino: 1}},
		{Version: 2, EmptyFile: &EmptyFile{PID: 7, StartTime: 1, FD: 3}},
		{Version: 2, RemoveFiles: &RemoveFiles{}},
		{Version: 2, RemoveFiles: &RemoveFiles{Path: "a/b"}},
		{Version: 2, RemoveFiles: &RemoveFiles{Path: "/"}},
		{Version: 2, RemoveFiles: &RemoveFiles{Path: "/a/../b"}},
		filter(func(f *RemoveFilter) { f.NetNSInode = 0 }),
		filter(func(f *RemoveFilter) { f.Ifindex = 0 }),
		filter(func(f *RemoveFilter) { f.Parent = netlink.HANDLE_ROOT }),
		filter(func(f *RemoveFilter) { f.Handle = 0 }),
		filter(func(f *RemoveFilter) { f.Priority = 0 }),
		filter(func(f *RemoveFilter) { f.Name = "" }),
		{Version: Version, NodeDown: &NodeDown{}},
		{Version: Version, SetClock: &SetClock{Before: 5}},
		{Version: Version, DriftClock: &DriftClock{Before: Rate{Tick: 10000}, During: Rate{Tick: 10000}}},
		{Version: Version, DriftClock: &DriftClock{Before: Rate{Tick: 10000}, During: Rate{Tick: 20000}}},
		{Version: Version, StartUnit: &StartUnit{}},
		{Version: Version, StartUnit: &StartUnit{Unit: "reboot.target"}},
		{Version: Version, StartUnit: &StartUnit{Unit: "../a.service"}},
		{Version: Version, RemoveQdisc: &RemoveQdisc{Ifindex: 1, Handle: 1 << 16, Kind: "prio"}},
		{Version: Version, RemoveQdisc: &RemoveQdisc{NetNSInode: 1, Handle: 1 << 16, Kind: "prio"}},
		{Version: Version, RemoveQdisc: &RemoveQdisc{NetNSInode: 1, Ifindex: 1, Kind: "prio"}},
		{Version: Version, RemoveQdisc: &RemoveQdisc{NetNSInode: 1, Ifindex: 1, Handle: 1<<16 + 1, Kind: "prio"}},
		{Version: Version, RemoveQdisc: &RemoveQdisc{NetNSInode: 1, Ifindex: 1, Handle: 1 << 16}},
	} {
		if a.Validate() == nil {
			t.Errorf("%+v passed", a)
		}
		if outcome, err := a.Undo(context.Background()); err == nil {
			t.Errorf("%+v was undone: %s", a, outcome)
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "value")
	whole := WriteFile{Path: path, Old: "100", New: " 50\n", Reads: "050"}
	device := WriteFile{Path: path, Old: "8:0 wbps=max", New: "8:0 wbps=001", Reads: "8:0 wbps=111", Key: "8:0"}
	for _, c := range []struct {
		action      WriteFile
		holds, want string
		outcome     Outcome
	}{
		{whole, "50\n", "100", Undone},
		{whole, "050", "100", Undone},
		{whole, "100\n", "100\n", AlreadyGone},
		{whole, "077\n", "077\n", Changed},
		{whole, "", "", Changed},
		{device, "8:0 wbps=111", "8:0 wbps=max", Undone},
		{device, "8:0 wbps=max\n8:1 wbps=111\n", "8:0 wbps=max\n8:1 wbps=111\n", AlreadyGone},
		{device, "8:01 wbps=111\n", "8:01 wbps=111\n", AlreadyGone},
		{device, "", "", AlreadyGone},
		{device, "8:1 wbps=5\n8:0 wbps=222\n", "8:1 wbps=5\n8:0 wbps=222\n", Changed},
	} {
		write(t, path, c.holds)
		a := Action{Version: Version, WriteFile: &c.action}
		wantUndo(t, a, c.outcome)
		got := content(t, path)
		// An ordinary file keeps what is behind the text; one of the kernel does not.
		if got != c.want && (c.outcome != Undone || got[:min(len(got), len(c.want))] != c.want) {
			t.Errorf("%q became %q, want %q", c.holds, got, c.want)
		}
	}
	// Beside another device's line, ours is still found and undone.
	write(t, path, "8:1 wbps=222\n8:0 wbps=111\n")
	wantUndo(t, Action{Version: Version, WriteFile: &device}, Undone)
}

func TestWriteFileTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "value")
	write(t, path, "1")
	a := Action{Version: Version, WriteFile: &WriteFile{Path: path, Old: "0", New: "1"}}
	wantUndo(t, a, Undone)
	wantUndo(t, a, AlreadyGone)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
}

func TestRemoveFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	a := madeFile(t, path)
	wantUndo(t, a, Undone)
	wantUndo(t, a, AlreadyGone)
	if a.RemoveFile.Born == 0 {
		t.Skip("the file system does not say when a file was made")
	}
	for madeFile(t, path).RemoveFile.Born == a.RemoveFile.Born { // until its clock ticks
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody makes a file of that name: with some file systems it has the inode number of ours.
	write(t, path, "theirs")
	wantUndo(t, a, Changed)
	if content(t, path) != "theirs" {
		t.Error("somebody else's file was touched")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
}

// TestRemoveFileDevice: the device decides only where nobody knows when the file was made.
func TestRemoveFileDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	a := madeFile(t, path)
	if a.RemoveFile.Born == 0 {
		t.Skip("the file system does not say when a file was made")
	}
	a.RemoveFile.Dev++ // as after a reboot
	wantUndo(t, a, Undone)
	a = madeFile(t, path)
	a.RemoveFile.Born++
	wantUndo(t, a, Changed)
}

// TestRemoveFileWrittenDownFirst: the inode is known before the name is there.
func TestRemoveFileWrittenDownFirst(t *testing.T) {
	dir := t.TempDir()
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		t.Skipf("no files without a name here: %v", err)
	}
	defer f.Close()
	path := filepath.Join(dir, "a")
	a, err := OpenFileAction(f, path)
	if err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
	if err := unix.Linkat(int(f.Fd()), "", unix.AT_FDCWD, path, unix.AT_EMPTY_PATH); err != nil {
		t.Skipf("no linking by file descriptor: %v", err)
	}
	wantUndo(t, a, Undone)
	if exists(path) {
		t.Error("the file is still there")
	}
}

func TestRemoveDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	ours := Action{Version: Version, RemoveDir: &RemoveDir{Path: path, Ino: st.Ino}}
	other := Action{Version: Version, RemoveDir: &RemoveDir{Path: path, Ino: st.Ino + 1}}
	wantUndo(t, other, Changed)
	wantUndo(t, ours, Undone)
	wantUndo(t, ours, AlreadyGone)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, Action{Version: Version, RemoveDir: &RemoveDir{Path: path}}, Undone)
	write(t, path, "a file")
	wantUndo(t, Action{Version: Version, RemoveDir: &RemoveDir{Path: path}}, Changed)
}

// FuzzAction: any text is refused, or is an action that comes back the same.
func FuzzAction(f *testing.F) {
	for _, a := range []Action{
		fileAction("/a"),
		{Version: 1, WriteFile: &WriteFile{Path: "/a", Old: "1", New: "2", Reads: "3", Key: "8:0"}},
		{Version: 1, RemoveDir: &RemoveDir{Path: "/a", Ino: 1}},
		{Version: 1, KillProcess: &KillProcess{PID: 2, StartTime: 1}},
		{Version: 1, RemoveFilter: &RemoveFilter{NetNSInode: 1, Ifindex: 1, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Name: "n"}},
		{Version: 3, RemoveQdisc: &RemoveQdisc{NetNSInode: 1, Ifindex: 1, Handle: 1 << 16, Kind: "prio"}},
	} {
		b, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"writeFile":null}`))
	f.Add([]byte(`{"version":1e9}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, again Action
		if json.Unmarshal(b, &a) != nil || a.Validate() != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil || json.Unmarshal(out, &again) != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("%s became %s, %v", b, out, err)
		}
	})
}
