package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"faultd/test/vm/guest"
)

// guestPATH is PATH in the guest.
const guestPATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// etc is the little that programs look up in a root file system.
var etc = map[string]string{
	"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
	"/etc/group":         "root:x:0:\nnogroup:x:65534:\n",
	"/etc/hosts":         "127.0.0.1 localhost faultd-vm\n::1 localhost\n",
	"/etc/resolv.conf":   "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	"/etc/os-release":    "ID=faultd-vm\nNAME=\"faultd test machine\"\n",
}

// buildImage makes the guest's root file system and the plan for its init.
func buildImage(ctx context.Context, k kernel, o options, nonce string) (*rootfs, error) {
	r := newRootfs()
	for p, text := range etc {
		r.addText(p, text)
	}
	for _, dir := range []string{"/root", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/lib", o.workDir} {
		r.addDir(dir)
	}
	r.addLink("/var/run", "/run")
	plan := guest.Plan{Nonce: nonce, Persist: o.persist != "", Dir: o.workDir, Env: guestEnv(k, o)}
	steps := []func() error{
		func() error { return addInit(ctx, r, k.arch, o.cacheDir) },
		func() error { return addBusybox(ctx, r, k) },
		func() error { return addKernelFiles(r, k) },
		func() error { return addModules(r, &plan, k, o.modules) },
		func() error { return addPackageFiles(r, o.workDir) },
		func() error { return addExtras(r, o) },
		func() error { return addPrograms(r, &plan, o.programs) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("build guest image: %w", err)
		}
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("build guest image: write plan: %w", err)
	}
	r.addText(guest.PlanPath, string(text))
	return r, nil
}

// guestEnv is the programs' environment: a plain one, the host's FAULTD_ variables, then what was
// asked for.
func guestEnv(k kernel, o options) []string {
	env := []string{"PATH=" + guestPATH, "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", guest.KernelVar + "=" + k.name}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "FAULTD_") && !strings.HasPrefix(kv, guest.KernelVar+"=") {
			env = append(env, kv)
		}
	}
	return append(env, o.env...)
}

func addInit(ctx context.Context, r *rootfs, a arch, cacheDir string) error {
	program, err := buildInit(ctx, a, cacheDir)
	if err != nil {
		return err
	}
	r.add("/init", node{mode: 0o755, data: program})
	return nil
}

// addBusybox adds a shell and the usual small programs.
func addBusybox(ctx context.Context, r *rootfs, k kernel) error {
	where, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("find busybox (apt-get install busybox-static): %w", err)
	}
	program := where
	if k.arch != amd64 {
		program = filepath.Join(filepath.Dir(k.image), busyboxFile)
	}
	if err := r.addProgram("/bin/busybox", program); err != nil {
		return err
	}
	applets, err := output(ctx, "/", where, "--list-full")
	if err != nil {
		return fmt.Errorf("list busybox applets: %w", err)
	}
	for _, applet := range strings.Fields(applets) {
		if _, taken := r.nodes[guestPath(applet)]; !taken {
			r.addLink(applet, "/bin/busybox")
		}
	}
	return nil
}

// addKernelFiles adds what a node has of its kernel on disk, for programs that read it.
func addKernelFiles(r *rootfs, k kernel) error {
	if k.modules == "" {
		return nil
	}
	release := filepath.Base(k.modules)
	return r.addFile("/boot/config-"+release, filepath.Join(filepath.Dir(k.image), configFile))
}

// addModules adds the modules that init is to load. Those asked for by name must be there.
func addModules(r *rootfs, plan *guest.Plan, k kernel, required []string) error {
	idx, err := readModules(k.modules)
	if err != nil {
		return err
	}
	inGuest := func(p string) string { return filepath.Join("/lib/modules", filepath.Base(k.modules), p) }
	_, missing := idx.closure(required)
	if len(missing) > 0 {
		return fmt.Errorf("find modules of kernel %s: no %s", k.name, strings.Join(missing, ", "))
	}
	for _, name := range required {
		if p, ok := idx.paths[moduleName(name)]; ok {
			plan.Required = append(plan.Required, inGuest(p))
		}
	}
	paths, _ := idx.closure(slices.Concat(required, defaultModules))
	for _, p := range paths {
		if err := r.addFile(inGuest(p), filepath.Join(k.modules, p)); err != nil {
			return err
		}
		plan.Modules = append(plan.Modules, inGuest(p))
	}
	return nil
}

// maxPackageFile keeps large droppings of a package directory, such as profiles, out of the guest.
const maxPackageFile = 16 << 20

// addPackageFiles adds what a Go package's tests may read from their directory: its own files and
// testdata. A directory that holds no Go files is none of a package, and nothing of it is added.
func addPackageFiles(r *rootfs, dir string) error {
	if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("add package files: %w", err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		info, err := os.Stat(p)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxPackageFile || filepath.Ext(p) == ".test" {
			continue
		}
		if err := r.addFile(p, p); err != nil {
			return err
		}
	}
	err = r.addTree(filepath.Join(dir, "testdata"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func addExtras(r *rootfs, o options) error {
	for _, dir := range o.dirs {
		if err := r.addTree(dir); err != nil {
			return err
		}
	}
	for _, file := range o.files {
		if err := r.addProgram(file, file); err != nil {
			return err
		}
	}
	return nil
}

// addPrograms adds the programs to run and their places in the plan. A program that is no file of
// the host is one of the guest's own, such as sh.
func addPrograms(r *rootfs, plan *guest.Plan, programs []guest.Program) error {
	for i, p := range programs {
		if !isFile(p.Path) {
			if strings.Contains(p.Path, "/") {
				return fmt.Errorf("add program %s: no such file", p.Path)
			}
			plan.Programs = append(plan.Programs, p)
			continue
		}
		at := fmt.Sprintf("/vm/%d/%s", i, filepath.Base(p.Path))
		if err := r.addProgram(at, p.Path); err != nil {
			return err
		}
		plan.Programs = append(plan.Programs, guest.Program{Path: at, Args: p.Args})
	}
	return nil
}

// writeImage writes r into a file below dir and returns its path.
func writeImage(r *rootfs, dir string) (string, error) {
	var b bytes.Buffer
	if err := r.writeTo(&b); err != nil {
		return "", fmt.Errorf("write guest image: %w", err)
	}
	file := filepath.Join(dir, "initramfs.cpio")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("write guest image: %w", err)
	}
	return file, nil
}
