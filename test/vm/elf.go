package main

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryClosure lists the files a program needs besides itself: its interpreter and its shared
// libraries with theirs, at the paths where the loader will look for them. A file that is no ELF
// needs nothing: scripts and data may be copied like programs.
func libraryClosure(program string, searchDirs []string) ([]string, error) {
	c := &closure{searchDirs: searchDirs}
	if err := c.add(program); err != nil {
		return nil, fmt.Errorf("find libraries of %s: %w", program, err)
	}
	return c.found, nil
}

type closure struct {
	searchDirs []string
	found      []string
}

func (c *closure) add(path string) error {
	f, err := elf.Open(path)
	var notELF *elf.FormatError
	if errors.As(err, &notELF) || errors.Is(err, os.ErrInvalid) || isShort(path) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Class != elf.ELFCLASS64 || f.Type == elf.ET_REL {
		return nil // a bpf object or another machine's program: data
	}
	if interp := interpreter(f); interp != "" {
		if err := c.need(interp); err != nil {
			return err
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read needed libraries: %w", err)
	}
	dirs := append(runPath(f, path), c.searchDirs...)
	for _, lib := range libs {
		where, err := findLibrary(lib, dirs)
		if err != nil {
			return err
		}
		if err := c.need(where); err != nil {
			return err
		}
	}
	return nil
}

func (c *closure) need(path string) error {
	if slices.Contains(c.found, path) {
		return nil
	}
	c.found = append(c.found, path)
	return c.add(path)
}

// isShort tells whether path is too short for an ELF header: debug/elf calls that an I/O error.
func isShort(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() < 64
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			return ""
		}
		return strings.TrimRight(string(data), "\x00")
	}
	return ""
}

// runPath lists the directories the file itself names, with $ORIGIN replaced.
func runPath(f *elf.File, path string) []string {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, _ := f.DynString(tag)
		for _, v := range values {
			for _, dir := range filepath.SplitList(v) {
				origin := filepath.Dir(path)
				dirs = append(dirs, strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir))
			}
		}
	}
	return dirs
}

func findLibrary(name string, dirs []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if f, err := elf.Open(path); err == nil {
			f.Close()
			if f.Class == elf.ELFCLASS64 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("find library %s: not in %s", name, strings.Join(dirs, ", "))
}

// systemLibraryDirs lists where the host's loader looks: what ld.so.conf (here at conf) names, then
// its built-in directories.
func systemLibraryDirs(conf string) []string {
	dirs := confDirs(conf, 0)
	return append(dirs, "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// confDirs reads an ld.so.conf with its includes. What cannot be read names no directory.
func confDirs(conf string, depth int) []string {
	f, err := os.Open(conf)
	if err != nil || depth > 4 {
		return nil
	}
	defer f.Close()
	var dirs []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "include":
			pattern := words[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(conf), pattern)
			}
			files, _ := filepath.Glob(pattern)
			for _, file := range files {
				dirs = append(dirs, confDirs(file, depth+1)...)
			}
		case len(words) == 1:
			dirs = append(dirs, words[0])
		}
	}
	return dirs
}
