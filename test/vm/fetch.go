package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A debianKernel is a kernel series and the suite whose newest cloud kernel is of that series.
type debianKernel struct {
	name, suite string
	arch        arch
	series      string // of the kernel
	security    bool   // the suite lies in the security archive
}

var debianKernels = []debianKernel{
	{name: "6.1", arch: amd64, series: "6.1", suite: "bookworm-security", security: true},
	{name: "6.12", arch: amd64, series: "6.12", suite: "trixie"},
	{name: "7.3", arch: amd64, series: "7.3", suite: "trixie-backports"},
}

// arm64Kernel is fetched and booted when it is named.
var arm64Kernel = debianKernel{name: "6.12-arm64", arch: arm64, series: "6.12", suite: "trixie"}

func debianKernelNamed(name string) (debianKernel, bool) {
	for _, k := range append(slices.Clone(debianKernels), arm64Kernel) {
		if k.name == name {
			return k, true
		}
	}
	return debianKernel{}, false
}

// metaPackage depends on the newest cloud kernel of its suite.
func (a arch) metaPackage() string { return "linux-image-cloud-" + a.name }

// keyring holds Debian's archive keys; package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// What a kernel directory holds once it is complete, beside lib/modules. The release is its
// `uname -r`.
const (
	imageFile   = "vmlinuz"
	configFile  = "config"
	releaseFile = "release"
	busyboxFile = "busybox" // of another architecture than the host's
)

// fetchKernel downloads k with apt and unpacks it below cacheDir; nothing is installed. A kernel
// that is there already is left alone. A failed fetch leaves no half kernel behind.
func fetchKernel(ctx context.Context, k debianKernel, cacheDir string) error {
	dir := kernelDir(cacheDir, k.name)
	if isFile(filepath.Join(dir, releaseFile)) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("fetch kernel %s: %w", k.name, err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return fmt.Errorf("fetch kernel %s: %w", k.name, err)
	}
	defer os.RemoveAll(work)
	if err := fetchInto(ctx, k, work, dir); err != nil {
		return fmt.Errorf("fetch kernel %s from %s: %w", k.name, k.suite, err)
	}
	return nil
}

// fetchInto does fetchKernel's work in the scratch directory work and puts the result at dir.
func fetchInto(ctx context.Context, k debianKernel, work, dir string) error {
	apt, err := newPrivateApt(k, filepath.Join(work, "apt"))
	if err != nil {
		return err
	}
	debs, err := apt.download(ctx, k)
	if err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	for _, deb := range debs {
		if _, err := output(ctx, work, "dpkg", "-x", deb, tree); err != nil {
			return fmt.Errorf("unpack kernel package: %w", err)
		}
	}
	ready := filepath.Join(work, "ready")
	if err := arrangeKernel(ctx, tree, ready); err != nil {
		return err
	}
	if k.arch != amd64 {
		if err := os.Rename(filepath.Join(tree, "usr", "bin", "busybox"), filepath.Join(ready, busyboxFile)); err != nil {
			return fmt.Errorf("arrange kernel: %w", err)
		}
	}
	// Another fetch may have won the race, its result is as good as ours.
	if err := os.Rename(ready, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("store kernel: %w", err)
	}
	return nil
}

// arrangeKernel turns unpacked kernel packages into a kernel directory: the image, its modules
// uncompressed (so that no run has to do it again) and modules.dep, which packages leave to their
// installation.
func arrangeKernel(ctx context.Context, tree, ready string) error {
	release, modules, err := soleModuleDir(tree)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(ready, "lib", "modules"), 0o755); err != nil {
		return fmt.Errorf("arrange kernel: %w", err)
	}
	for name, places := range map[string][]string{ // before 7.0 and since
		imageFile:  {filepath.Join(tree, "boot", "vmlinuz-"+release), filepath.Join(modules, "vmlinuz")},
		configFile: {filepath.Join(tree, "boot", "config-"+release), filepath.Join(modules, "config")},
	} {
		if err := moveFirst(places, filepath.Join(ready, name)); err != nil {
			return fmt.Errorf("arrange kernel: %w", err)
		}
	}
	if err := os.Rename(modules, filepath.Join(ready, "lib", "modules", release)); err != nil {
		return fmt.Errorf("arrange kernel: %w", err)
	}
	if err := uncompressModules(ctx, filepath.Join(ready, "lib", "modules", release)); err != nil {
		return err
	}
	// busybox's depmod, because the guest needs busybox anyway, and kmod may be absent.
	if _, err := output(ctx, ready, "busybox", "depmod", "-b", ready, release); err != nil {
		return fmt.Errorf("index kernel modules: %w", err)
	}
	if err := os.WriteFile(filepath.Join(ready, releaseFile), []byte(release+"\n"), 0o644); err != nil {
		return fmt.Errorf("arrange kernel: %w", err)
	}
	return nil
}

// moveFirst moves the first of places that is there.
func moveFirst(places []string, to string) error {
	for _, from := range places {
		if isFile(from) {
			return os.Rename(from, to)
		}
	}
	return fmt.Errorf("find %s: none of %s is in the packages", filepath.Base(to), strings.Join(places, ", "))
}

// soleModuleDir finds the module directory of the one kernel in tree, before or after Debian's
// /usr merge, and with it the kernel's release.
func soleModuleDir(tree string) (release, dir string, err error) {
	dirs, _ := filepath.Glob(filepath.Join(tree, "lib", "modules", "*"))
	merged, _ := filepath.Glob(filepath.Join(tree, "usr", "lib", "modules", "*"))
	dirs = append(dirs, merged...)
	if len(dirs) != 1 {
		return "", "", fmt.Errorf("arrange kernel: found %d module directories in the packages, want 1", len(dirs))
	}
	return filepath.Base(dirs[0]), dirs[0], nil
}

func uncompressModules(ctx context.Context, dir string) error {
	tools := map[string][]string{".xz": {"xz", "-d"}, ".zst": {"zstd", "-d", "-q", "--rm"}, ".gz": {"gzip", "-d"}}
	packed := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && tools[ext] != nil && strings.HasSuffix(path, ".ko"+ext) {
			packed[ext] = append(packed[ext], path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("uncompress modules: %w", err)
	}
	for ext, files := range packed {
		if _, err := output(ctx, dir, tools[ext][0], append(tools[ext][1:], files...)...); err != nil {
			return fmt.Errorf("uncompress modules: %w", err)
		}
	}
	return nil
}

// A privateApt is an apt with sources, state and cache of its own: it sees one suite and neither
// reads nor changes what the system's apt knows. The system's proxy and certificate settings apply.
type privateApt struct {
	dir, config string
}

func newPrivateApt(k debianKernel, dir string) (*privateApt, error) {
	from := systemMirrors("/etc/apt")
	uri := from.debian
	if k.security {
		uri = from.security
	}
	a := &privateApt{dir: dir, config: filepath.Join(dir, "apt.conf")}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("set up private apt: %w", err)
		}
	}
	files := map[string]string{
		"sources.list": fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", k.arch.name, keyring, uri, k.suite),
		"status":       "",
		"apt.conf":     aptConfig(dir, k.arch),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("set up private apt: %w", err)
		}
	}
	return a, nil
}

// aptConfig is read after the system's own configuration and overrides it.
func aptConfig(dir string, a arch) string {
	var b strings.Builder
	set := func(key, value string) { fmt.Fprintf(&b, "%s %q;\n", key, value) }
	set("Dir::Etc::SourceList", filepath.Join(dir, "sources.list"))
	set("Dir::Etc::SourceParts", "/dev/null")
	set("Dir::Etc::Preferences", "/dev/null")
	set("Dir::Etc::PreferencesParts", "/dev/null")
	set("Dir::State", filepath.Join(dir, "state"))
	set("Dir::State::status", filepath.Join(dir, "status"))
	set("Dir::Cache", filepath.Join(dir, "cache"))
	set("APT::Architecture", a.name)
	set("APT::Architectures", a.name)
	set("APT::Sandbox::User", "root") // user _apt cannot reach a cache below a home directory
	set("Acquire::Languages", "none")
	// The system's hooks clean or refresh the system's caches: none of our business.
	b.WriteString("#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n")
	return b.String()
}

// download fetches the newest kernel of the suite, which must be of the named series, and returns
// the paths of its packages.
func (a *privateApt) download(ctx context.Context, k debianKernel) ([]string, error) {
	if _, err := output(ctx, a.dir, "apt-get", "-c", a.config, "-q", "update"); err != nil {
		return nil, fmt.Errorf("update package lists: %w", err)
	}
	meta, err := output(ctx, a.dir, "apt-cache", "-c", a.config, "show", k.arch.metaPackage())
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", k.arch.metaPackage(), err)
	}
	image, err := imagePackage(meta, k)
	if err != nil {
		return nil, err
	}
	show, err := output(ctx, a.dir, "apt-cache", "-c", a.config, "show", image)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", image, err)
	}
	names := append([]string{image}, partPackages(show, image)...)
	if k.arch != amd64 {
		names = append(names, "busybox-static")
	}
	if _, err := output(ctx, a.dir, "apt-get", append([]string{"-c", a.config, "-q", "download"}, names...)...); err != nil {
		return nil, fmt.Errorf("download %s: %w", strings.Join(names, " "), err)
	}
	debs, _ := filepath.Glob(filepath.Join(a.dir, "*.deb"))
	if len(debs) != len(names) {
		return nil, fmt.Errorf("download %s: found %d packages afterwards, want %d", image, len(debs), len(names))
	}
	return debs, nil
}

var imageDependency = regexp.MustCompile(`(?m)^Depends:.*\b(linux-image-([0-9]+\.[0-9]+)[.+-][^ ,]*cloud-(?:amd64|arm64)[^ ,]*)`)

// imagePackage reads which kernel the meta-package depends on. A suite that has moved on to
// another series is an error: a test must not run on a kernel other than the one it names.
func imagePackage(show string, k debianKernel) (string, error) {
	m := imageDependency.FindStringSubmatch(show)
	if m == nil {
		return "", fmt.Errorf("resolve %s: it depends on no kernel", k.arch.metaPackage())
	}
	if m[2] != k.series {
		return "", fmt.Errorf("resolve %s: the suite has %s, want series %s", k.arch.metaPackage(), m[1], k.series)
	}
	return m[1], nil
}

// partPackages reads which other packages hold parts of the kernel: before 7.0 an image package is
// whole, since then the image proper, the modules and what describes them are packages of their own.
func partPackages(show, image string) []string {
	release := strings.TrimPrefix(image, "linux-image-")
	part := regexp.MustCompile(`\blinux-(?:base|binary|modules)-` + regexp.QuoteMeta(release) + `(?:[ ,(|]|$)`)
	var parts []string
	for line := range strings.Lines(show) {
		if !strings.HasPrefix(line, "Depends:") && !strings.HasPrefix(line, "Pre-Depends:") {
			continue
		}
		for _, m := range part.FindAllString(strings.TrimSpace(line), -1) {
			if name := strings.TrimRight(m, " ,(|"); !slices.Contains(parts, name) {
				parts = append(parts, name)
			}
		}
	}
	return parts
}

// output runs a command in dir and returns its standard output; its error ends with what the
// command said on standard error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
