package containerdtest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
)

// Names of images that every Runtime has.
const (
	// BusyboxImage has all commands of busybox in /bin, and sleeps unless it is told to do something else.
	BusyboxImage = "localhost/busybox:test"
	pauseImage   = "localhost/pause:test"
)

// Image is a container image of one layer.
type Image struct {
	Name string
	// Files are paths in the image and the files of this machine that are there.
	Files map[string]string
	// Links are paths in the image and where they point.
	Links      map[string]string
	Entrypoint []string
	Cmd        []string
}

// Import makes an image that pods of this runtime may use.
func (r *Runtime) Import(tb testing.TB, image Image) {
	tb.Helper()
	archive, err := image.archive()
	if err != nil {
		tb.Fatalf("make the image %s: %v", image.Name, err)
	}
	r.ImportArchive(tb, bytes.NewReader(archive))
}

// ImportArchive takes an archive of images, as buildah and docker write it.
func (r *Runtime) ImportArchive(tb testing.TB, archive io.Reader) {
	tb.Helper()
	cmd := exec.Command("ctr", "--address", r.Socket, "--namespace", "k8s.io", "images", "import", "-")
	cmd.Stdin = archive
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("import an image: %v\n%s", err, out)
	}
}

func (r *Runtime) importBase(tb testing.TB) {
	tb.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		tb.Fatal(err)
	}
	commands, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		tb.Fatalf("list the commands of busybox: %v", err)
	}
	image := Image{Name: BusyboxImage, Files: map[string]string{"bin/busybox": busybox}, Links: make(map[string]string), Cmd: []string{"sleep", "infinity"}}
	for _, command := range strings.Fields(string(commands)) {
		if command != "busybox" {
			image.Links["bin/"+command] = "busybox"
		}
	}
	r.Import(tb, image)
	r.Import(tb, Image{Name: pauseImage, Files: map[string]string{"busybox": busybox}, Entrypoint: []string{"/busybox", "sleep", "infinity"}})
}

// archive is the image in the format of `docker save`.
func (i Image) archive() ([]byte, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{i.Name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, part := range []struct {
		name string
		data []byte
	}{{"layer.tar", layer}, {"config.json", config}, {"manifest.json", manifest}} {
		if err := writeFile(w, part.name, 0o644, part.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func (i Image) layer() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		data, err := os.ReadFile(i.Files[name])
		if err != nil {
			return nil, err
		}
		if err := writeFile(w, name, 0o755, data); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.Links)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: i.Links[name], Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func writeFile(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
