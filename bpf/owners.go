package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The words of /proc/PID/fdinfo for what a descriptor holds (kernel/bpf/syscall.c: bpf_*_show_fdinfo).
const (
	programKey = "prog_id:"
	mapKey     = "map_id:"
	linkKey    = "link_id:"
)

func key(word string, id uint32) string { return fmt.Sprint(word, id) }

// heldByOthers gives the keys of the programs, maps and links that other processes hold. Such a process answers for them: if
// it ends, the kernel frees them.
func heldByOthers() map[string]bool {
	held := map[string]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && pid != os.Getpid() {
			for k := range heldBy(pid) {
				held[k] = true
			}
		}
	}
	return held
}

// heldBy is empty for a process that has ended.
func heldBy(pid int) map[string]bool {
	held := map[string]bool{}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	entries, _ := os.ReadDir(dir + "/fd")
	for _, e := range entries {
		// anon_inode:bpf-prog, bpf-map, bpf_link
		if what, _ := os.Readlink(filepath.Join(dir, "fd", e.Name())); !strings.HasPrefix(what, "anon_inode:bpf") {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(dir, "fdinfo", e.Name()))
		for line := range strings.Lines(string(text)) {
			for _, word := range []string{programKey, mapKey, linkKey} {
				if id, ok := strings.CutPrefix(line, word); ok {
					held[word+strings.TrimSpace(id)] = true
				}
			}
		}
	}
	return held
}
