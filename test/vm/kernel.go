package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// injectionKernel is the one kernel that is no Debian package: built in one piece, with error
// injection on, lying beside the repository.
const injectionKernel = "6.12-ei"

// injectionImage is where injectionKernel lies, seen from the repository's root.
const injectionImage = "../shared/kernels/bzImage-6.12-error-injection"

// kernelNames are all the kernels the runner knows, in the order in which `list` shows them.
func kernelNames() []string {
	names := make([]string, 0, len(debianKernels)+2)
	for _, k := range debianKernels {
		names = append(names, k.name)
	}
	return append(names, arm64Kernel.name, injectionKernel)
}

// A kernel is something that can be booted.
type kernel struct {
	name    string
	arch    arch
	image   string // the bzImage, or arm64's Image
	modules string // its module directory (holding modules.dep); "" if everything is built in
	disk    string // the disk controller its image has built in: "nvme" or "virtio-blk-pci"
}

// errUnknownKernel is wrapped by findKernel's error for a name that is not in kernelNames.
var errUnknownKernel = errors.New("unknown kernel")

// chooseKernel returns the kernel that the command line asks for.
func chooseKernel(o options) (kernel, error) {
	if o.image != "" {
		return builtInKernel(o.kernel, o.image), nil
	}
	return findKernel(o.kernel, o.cacheDir)
}

// findKernel returns the kernel called name. Its error says in one line why it cannot be booted
// and what would help.
func findKernel(name, cacheDir string) (kernel, error) {
	if name == injectionKernel {
		return findInjectionKernel()
	}
	debian, ok := debianKernelNamed(name)
	if !ok {
		return kernel{}, fmt.Errorf("find kernel: %w %q, known: %s", errUnknownKernel, name, strings.Join(kernelNames(), ", "))
	}
	dir := kernelDir(cacheDir, name)
	release, err := os.ReadFile(filepath.Join(dir, releaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return kernel{}, fmt.Errorf("find kernel %s: not fetched, run `go run ./test/vm fetch %s`", name, name)
	}
	if err != nil {
		return kernel{}, fmt.Errorf("find kernel %s: %w", name, err)
	}
	return kernel{
		name:    name,
		arch:    debian.arch,
		image:   filepath.Join(dir, imageFile),
		modules: filepath.Join(dir, "lib", "modules", strings.TrimSpace(string(release))),
		disk:    "nvme",
	}, nil
}

func findInjectionKernel() (kernel, error) {
	root, err := repoRoot()
	if err != nil {
		return kernel{}, fmt.Errorf("find kernel %s: %w", injectionKernel, err)
	}
	image := filepath.Join(root, injectionImage)
	if _, err := os.Stat(image); err != nil {
		return kernel{}, fmt.Errorf("find kernel %s: %w", injectionKernel, err)
	}
	return builtInKernel(injectionKernel, image), nil
}

// builtInKernel is one without modules.
func builtInKernel(name, image string) kernel {
	return kernel{name: name, arch: amd64, image: image, disk: "virtio-blk-pci"}
}

// kernelDir is where fetch leaves the Debian kernel called name.
func kernelDir(cacheDir, name string) string { return filepath.Join(cacheDir, "kernels", name) }

// defaultCacheDir is the user's cache directory's faultd folder: outside the repository, so that
// kernels survive a clean checkout.
func defaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "faultd"), nil
}
