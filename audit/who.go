package audit

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// Who asked for something: a user, by a process.
type Who struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	User string `json:"user,omitempty"`
	// Login is the user that logged in, who may have become another since, by sudo(8) for example. Absent: nobody did.
	Login *uint32 `json:"login,omitempty"`
	PID   int     `json:"pid"`
	// Program is the path of what the process runs, and Cgroup where it is; empty if it was gone already.
	Program string `json:"program,omitempty"`
	Cgroup  string `json:"cgroup,omitempty"`
}

// noLogin is what the kernel says of a process that no login led to.
const noLogin = ^uint32(0)

// Process describes a process that the kernel named, with what /proc says of it now.
func Process(pid int, uid, gid uint32) Who {
	w := Who{UID: uid, GID: gid, PID: pid}
	if u, err := user.LookupId(fmt.Sprint(uid)); err == nil {
		w.User = u.Username
	}
	if pid <= 0 {
		return w
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	w.Program, _ = os.Readlink(dir + "exe")
	if text, err := os.ReadFile(dir + "loginuid"); err == nil {
		if login, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil && uint32(login) != noLogin {
			w.Login = new(uint32(login))
		}
	}
	text, _ := os.ReadFile(dir + "cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			w.Cgroup = strings.TrimSpace(path)
		}
	}
	return w
}

// Self is this process.
func Self() Who { return Process(os.Getpid(), uint32(os.Geteuid()), uint32(os.Getegid())) }

// String is short, for people.
func (w Who) String() string {
	text := w.User
	if text == "" {
		text = fmt.Sprintf("uid %d", w.UID)
	}
	if w.Login != nil && *w.Login != w.UID {
		text += fmt.Sprintf(" (login uid %d)", *w.Login)
	}
	return text
}
