package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mirrors are the two archives the kernels come from.
type mirrors struct {
	debian, security string
}

// defaultMirrors are Debian's public ones, for a host whose apt sources name none.
var defaultMirrors = mirrors{
	debian:   "http://deb.debian.org/debian",
	security: "http://deb.debian.org/debian-security",
}

// systemMirrors reads the mirrors this host already uses from its apt directory (/etc/apt), so that
// a runner behind a private mirror stays behind it. What is not found there is the public default.
func systemMirrors(aptDir string) mirrors {
	found := defaultMirrors
	files, _ := filepath.Glob(filepath.Join(aptDir, "sources.list.d", "*"))
	files = append([]string{filepath.Join(aptDir, "sources.list")}, files...)
	var haveDebian, haveSecurity bool
	for _, uri := range sourceURIs(files) {
		switch {
		case !haveDebian && strings.HasSuffix(uri, "/debian"):
			found.debian, haveDebian = uri, true
		case !haveSecurity && strings.HasSuffix(uri, "/debian-security"):
			found.security, haveSecurity = uri, true
		}
	}
	return found
}

// sourceURIs lists the archive URIs of apt source files in both formats, without trailing slashes.
// Unreadable files are passed over: they only cost the default mirror.
func sourceURIs(files []string) []string {
	var uris []string
	for _, file := range files {
		ext := filepath.Ext(file)
		if ext != ".list" && ext != ".sources" {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			uris = append(uris, lineURIs(lines.Text())...)
		}
		f.Close()
	}
	return uris
}

// lineURIs returns the URIs of one line, either "deb [options] URI suite ..." or "URIs: URI ...".
func lineURIs(line string) []string {
	words := strings.Fields(line)
	if len(words) == 0 || (words[0] != "deb" && !strings.EqualFold(words[0], "URIs:")) {
		return nil
	}
	isURI := func(w string) bool { return strings.Contains(w, "://") && !strings.Contains(w, "=") }
	words = slices.DeleteFunc(words[1:], func(w string) bool { return !isURI(w) })
	for i, w := range words {
		words[i] = strings.TrimRight(w, "/")
	}
	return words
}
