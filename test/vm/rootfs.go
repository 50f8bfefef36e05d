package main

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A rootfs collects what the guest's root file system holds and writes it as an initramfs.
// A later addition at the same path replaces an earlier one.
type rootfs struct {
	nodes map[string]node // by absolute path
}

// A node is a directory, a symbolic link, or a file with its data here or in a file of the host.
type node struct {
	mode   fs.FileMode
	target string
	data   []byte
	source string
}

// mergedDirs are links into /usr in the guest, as on Debian: paths of a host with or without the
// merge both work.
var mergedDirs = []string{"bin", "sbin", "lib", "lib64"}

func newRootfs() *rootfs {
	r := &rootfs{nodes: map[string]node{}}
	for _, dir := range mergedDirs {
		r.addDir("/usr/" + dir)
		r.nodes["/"+dir] = node{mode: fs.ModeSymlink, target: "usr/" + dir}
	}
	return r
}

// guestPath is where the absolute path p really lies in the guest.
func guestPath(p string) string {
	p = path.Clean("/" + p)
	for _, dir := range mergedDirs {
		if strings.HasPrefix(p, "/"+dir+"/") {
			return "/usr" + p
		}
	}
	return p
}

func (r *rootfs) addDir(p string) {
	for p = guestPath(p); p != "/"; p = path.Dir(p) {
		if _, ok := r.nodes[p]; ok {
			return
		}
		r.nodes[p] = node{mode: fs.ModeDir | 0o755}
	}
}

func (r *rootfs) add(p string, n node) {
	p = guestPath(p)
	r.addDir(path.Dir(p))
	if _, ok := r.nodes[p]; ok && n.mode.IsDir() {
		return
	}
	r.nodes[p] = n
}

func (r *rootfs) addText(p, text string) { r.add(p, node{mode: 0o644, data: []byte(text)}) }

func (r *rootfs) addLink(p, target string) {
	r.add(p, node{mode: fs.ModeSymlink, target: target})
}

// addFile adds the host's file source, following links, at p.
func (r *rootfs) addFile(p, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("add file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("add file %s: it is no regular file", source)
	}
	r.add(p, node{mode: info.Mode(), source: source})
	return nil
}

// addProgram adds a program at p, and its libraries at the paths they have on the host.
func (r *rootfs) addProgram(p, source string) error {
	if err := r.addFile(p, source); err != nil {
		return err
	}
	libs, err := libraryClosure(source, systemLibraryDirs("/etc/ld.so.conf"))
	if err != nil {
		return err
	}
	for _, lib := range libs {
		if err := r.addFile(lib, lib); err != nil {
			return err
		}
	}
	return nil
}

// addTree adds a directory of the host with all its files and links at its own path. Sockets,
// devices and the like are left out.
func (r *rootfs) addTree(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.IsDir():
			r.add(p, node{mode: mode})
		case mode.IsRegular():
			r.add(p, node{mode: mode, source: p})
		case mode&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			r.addLink(p, target)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add directory: %w", err)
	}
	return nil
}

// writeTo writes the initramfs, uncompressed: unpacking costs more under emulation than reading.
func (r *rootfs) writeTo(w io.Writer) error {
	c := &cpioWriter{w: w}
	for _, p := range slices.Sorted(maps.Keys(r.nodes)) { // sorted, parents come before what they hold
		n := r.nodes[p]
		switch {
		case n.mode.IsDir():
			c.dir(p, n.mode)
		case n.mode&fs.ModeSymlink != 0:
			c.symlink(p, n.target)
		case n.source == "":
			c.file(p, n.mode, n.data)
		default:
			data, err := os.ReadFile(n.source)
			if err != nil {
				return fmt.Errorf("add file: %w", err)
			}
			c.file(p, n.mode, data)
		}
	}
	return c.close()
}
