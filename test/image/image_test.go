// Package image tests the container image: it builds it with buildah, without a network, and looks inside.
package image

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const repository = "../.."

// TestImage runs `make image` as a user would and then the image's own binary.
func TestImage(t *testing.T) {
	b := newBuilder(t)
	b.makeBase(baseImage(t))
	root := b.checked("image", image, "faultd", "serve")
	// Within the image's own root: nothing of the host's files can help.
	for command, want := range map[string]string{
		"version": `^faultd \S+ \S+ go1\.\d+\S* linux/` + runtime.GOARCH,
		"kinds":   `no daemon answers on /run/faultd/faultd.sock`,
		"--help":  `(?s)inject.*uninstall`,
	} {
		cmd := exec.Command("chroot", root, "/faultd", command)
		out, err := cmd.CombinedOutput()
		if err != nil && command != "kinds" {
			t.Errorf("%s: %v", command, err)
		}
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("%s said %q, want %s", command, out, want)
		}
	}
	t.Run("in pods", func(t *testing.T) { testPods(t, b.archive(image), filepath.Join(root, "faultd")) })
}

// TestImageKube does so with the agent's image.
func TestImageKube(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles Kubernetes' client, which takes a minute: make test-k8s runs it")
	}
	b := newBuilder(t)
	b.makeBase(baseImage(t))
	root := b.checked("image-kube", "localhost/faultd-kube:dev", "faultd-kube")
	if out, _ := exec.Command("chroot", root, "/faultd-kube", "--node", "n1").CombinedOutput(); !strings.Contains(string(out), "outside of a cluster give --kubeconfig") {
		t.Errorf("faultd-kube said %q", out)
	}
}

// mostBytes is how large an image may be.
const mostBytes = 40_000_000

// checked runs a target of make that builds an image, looks inside, and gives the image's own root: the binary alone, static, and not too large.
func (b *builder) checked(target, image, binary string, cmd ...string) (root string) {
	b.t.Helper()
	b.run("make", "--no-print-directory", "-C", repository, target)
	container := strings.TrimSpace(b.run("buildah", "from", "--pull-never", image))
	root = strings.TrimSpace(b.run("buildah", "mount", container))
	if got := files(b.t, root); !slices.Equal(got, []string{binary}) {
		b.t.Fatalf("%s holds %q, want the binary alone", image, got)
	}
	path := filepath.Join(root, binary)
	info, err := os.Stat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.t.Logf("%s has %.1f MiB", image, float64(info.Size())/(1<<20)); info.Size() > mostBytes {
		b.t.Errorf("%s has %d bytes, at most %d are wanted", image, info.Size(), mostBytes)
	}
	checkStatic(b.t, path)
	checkConfig(b.t, b.run("buildah", "inspect", "--type", "image", image), "/"+binary, cmd...)
	return root
}

// builder is buildah with everything it keeps in a directory of the test's own.
type builder struct {
	t   *testing.T
	dir string
	env []string
}

// newBuilder skips the test where it cannot run, and says why; FAULTD_REQUIRE_ROOT=1, as in CI, forbids that.
func newBuilder(t *testing.T) *builder {
	t.Helper()
	if reason := cannotBuild(); reason != "" {
		if os.Getenv("FAULTD_REQUIRE_ROOT") == "1" {
			t.Fatalf("%s, and FAULTD_REQUIRE_ROOT=1 forbids to skip", reason)
		}
		t.Skip(reason)
	}
	b := &builder{t: t, dir: t.TempDir()}
	b.write("storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = \"%s/images\"\nrunroot = \"%[1]s/run\"\n", b.dir))
	// The toolchain, its modules and its cache are lent to the build, so that it needs no network and little time.
	b.write("containers.conf", fmt.Sprintf("[containers]\nvolumes = [%q, %q, %q]\n",
		goEnv(t, "GOROOT")+":/usr/local/go:ro", goEnv(t, "GOMODCACHE")+":/go/pkg/mod:ro", goEnv(t, "GOCACHE")+":/cache"))
	b.env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+b.dir,
		"CONTAINERS_STORAGE_CONF="+filepath.Join(b.dir, "storage.conf"), "CONTAINERS_CONF="+filepath.Join(b.dir, "containers.conf"))
	t.Cleanup(func() { b.run("buildah", "rm", "--all") })
	return b
}

func cannotBuild() string {
	if os.Geteuid() != 0 {
		return "needs root: it builds a container image"
	}
	for _, program := range []string{"buildah", "busybox", "make", "chroot"} {
		if _, err := exec.LookPath(program); err != nil {
			return "needs " + program + ": run test/deps.sh"
		}
	}
	return ""
}

func (b *builder) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// run gives what a command printed on its standard output; one that fails ends the test.
func (b *builder) run(name string, args ...string) string {
	b.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = b.env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errOut.Bytes())
	}
	return out.String()
}

// makeBase makes what stands in for the Go image under its real name: a shell, to run
// the toolchain that is lent to it, and an empty /tmp.
func (b *builder) makeBase(name string) {
	b.t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		b.t.Fatal(err)
	}
	container := strings.TrimSpace(b.run("buildah", "from", "scratch"))
	b.run("buildah", "copy", container, busybox, "/bin/sh")
	b.run("buildah", "copy", container, b.t.TempDir(), "/tmp")
	b.run("buildah", "config", "--env", "PATH=/usr/local/go/bin:/bin", "--env", "GOPATH=/go", "--env", "GOTOOLCHAIN=local", "--env", "GOPROXY=off", "--env", "GOCACHE=/cache", container)
	b.run("buildah", "commit", "-q", container, name)
	b.run("buildah", "rm", container)
}

// baseImage is what the Dockerfile builds with: pinned, and the Go of go.mod or newer.
func baseImage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^FROM (docker\.io/library/golang:\d+\.\d+\.\d+) AS build$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("the Dockerfile names no Go image with a whole version")
	}
	return string(found[1])
}

// archive is an image as other programs take it.
func (b *builder) archive(image string) *os.File {
	b.t.Helper()
	path := filepath.Join(b.dir, "image.tar")
	b.run("buildah", "push", "-q", image, "docker-archive:"+path+":"+image)
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// files lists what is in a directory and below, without the directories.
func files(t *testing.T, root string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func checkStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary needs %q, %v", libraries, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is linked dynamically: it has a %s segment", p.Type)
		}
	}
}

func checkConfig(t *testing.T, inspected, entrypoint string, cmd ...string) {
	t.Helper()
	var image struct {
		OCIv1 struct {
			Config struct{ Entrypoint, Cmd []string }
		}
	}
	if err := json.Unmarshal([]byte(inspected), &image); err != nil {
		t.Fatal(err)
	}
	c := image.OCIv1.Config
	if !slices.Equal(c.Entrypoint, []string{entrypoint}) || !slices.Equal(c.Cmd, cmd) {
		t.Errorf("the image runs %q %q", c.Entrypoint, c.Cmd)
	}
}
