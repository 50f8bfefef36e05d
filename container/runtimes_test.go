package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"faultd/cgroup"
)

func find(t *testing.T, r *Runtimes, text string) ([]cgroup.Container, error) {
	t.Helper()
	return r.Containers(t.Context(), cgroup.ContainerSelector{Text: text})
}

func ids(containers []cgroup.Container) (all []string) {
	for _, c := range containers {
		all = append(all, c.ID)
	}
	return all
}

func TestContainersOverCRI(t *testing.T) {
	f := &fakeCRI{}
	a, b := f.pod("shop", "web-0", nil), f.pod("shop", "web-1", nil)
	first, second, sidecar := f.container(a, "app"), f.container(b, "app"), f.container(b, "sidecar")
	stopped := f.container(b, "init")
	f.containers[3].State = v1.ContainerState_CONTAINER_EXITED
	r := New(Sockets{CRI: []string{serveCRI(t, f)}, Docker: []string{}})
	for text, want := range map[string][]string{
		"app": {first, second}, "sidecar": {sidecar}, second: {second}, second[:20]: {second}, first[:4]: {first},
	} {
		got, err := find(t, r, text)
		if err != nil || !slices.Equal(ids(got), want) {
			t.Errorf("%s: %v, %v; want %v", text, ids(got), err, want)
		}
	}
	got, err := find(t, r, "sidecar")
	if want := (cgroup.Container{ID: sidecar, Name: "sidecar", Pod: "shop/web-1", PID: 203, CgroupsPath: "/kubepods/x/" + sidecar}); err != nil || got[0] != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"nobody": "no such container at " + r.sockets.CRI[0], "000": "no such container", "init": "does not run, it is exited", stopped: "it is exited",
	} {
		if got, err := find(t, r, text); !errors.Is(err, cgroup.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", text, got, err, want)
		}
	}
	got, err = r.Containers(t.Context(), cgroup.ContainerSelector{Pattern: regexp.MustCompile("^(app|init)$")})
	if err != nil || !slices.Equal(ids(got), []string{first, second}) {
		t.Errorf("pattern: %v, %v", ids(got), err)
	}
}

func TestPods(t *testing.T) {
	f := &fakeCRI{}
	old := f.pod("shop", "web-0", map[string]string{"app": "web"})
	now := f.pod("shop", "web-0", map[string]string{"app": "web"}) // the sandbox was made anew
	db := f.pod("shop", "db-0", map[string]string{"app": "db"})
	f.pod("other", "web-0", map[string]string{"app": "web"})
	idle := f.pod("shop", "idle", map[string]string{"app": "web"})
	f.pods[4].State = v1.PodSandboxState_SANDBOX_NOTREADY
	f.container(old, "app")
	app, proxy, store, _ := f.container(now, "app"), f.container(now, "proxy"), f.container(db, "store"), f.container(idle, "app")
	socket := serveCRI(t, f)
	r := New(Sockets{CRI: []string{socket}})
	for _, test := range []struct {
		s    cgroup.PodSelector
		want []string
		err  string
	}{
		{s: cgroup.PodSelector{Namespace: "shop", Name: "web-0"}, want: []string{app, proxy}},
		{s: cgroup.PodSelector{Namespace: "shop", Name: "web-0", Containers: []string{"proxy"}}, want: []string{proxy}},
		{s: cgroup.PodSelector{Namespace: "shop"}, want: []string{store, app, proxy}},
		{s: cgroup.PodSelector{Namespace: "shop", Containers: []string{"store"}}, want: []string{store}},
		{s: cgroup.PodSelector{Namespace: "shop", Name: "web-0", Containers: []string{"app", "none"}}, err: "of pod shop/web-0 there runs only app, proxy"},
		{s: cgroup.PodSelector{Namespace: "other", Name: "web-0"}, err: "of pod other/web-0 there runs no container"},
		{s: cgroup.PodSelector{Namespace: "shop", Name: "idle"}, err: "no such pod is ready at " + socket},
	} {
		pods, err := r.Pods(t.Context(), test.s)
		if test.err != "" {
			if !errors.Is(err, cgroup.ErrNotFound) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: %v, %v; want %q", test.s, pods, err, test.err)
			}
			continue
		}
		var got []string
		for _, pod := range pods {
			if pod.Sandbox == nil || pod.Sandbox.PID == 0 || pod.UID != "uid-"+pod.Name {
				t.Errorf("%v: %+v", test.s, pod)
			}
			got = append(got, ids(pod.Containers)...)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, %v; want %v", test.s, got, err, test.want)
		}
	}
}

// CRI-O may have no process for a sandbox.
func TestPodWithoutInfraContainer(t *testing.T) {
	f := &fakeCRI{}
	pod := f.pod("shop", "web-0", nil)
	f.tell(pod, 0, "runc", "")
	f.container(pod, "app")
	pods, err := New(Sockets{CRI: []string{serveCRI(t, f)}}).Pods(t.Context(), cgroup.PodSelector{Namespace: "shop"})
	if err != nil || len(pods) != 1 || pods[0].Sandbox != nil || len(pods[0].Containers) != 1 {
		t.Errorf("%+v, %v", pods, err)
	}
}

func TestIsolated(t *testing.T) {
	f := &fakeCRI{}
	kata, gvisor := f.pod("shop", "kata", nil), f.pod("shop", "gvisor", nil)
	f.container(kata, "a")
	f.tell(f.container(gvisor, "b"), 1, "runsc", "/x") // told by the shim
	f.pods[0].RuntimeHandler = "kata-qemu"             // told by the handler, as CRI-O does
	docker := serveDocker(t, fakeDocker{strings.Repeat("d", 64), "c", "running", "io.containerd.kata.v2", 7})
	r := New(Sockets{CRI: []string{serveCRI(t, f)}, Docker: []string{docker}})
	for name, want := range map[string]string{"a": "Kata Containers", "b": "gVisor", "c": "Kata Containers"} {
		if got, err := find(t, r, name); err != nil || got[0].Isolated != want {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, want)
		}
	}
	pods, err := r.Pods(t.Context(), cgroup.PodSelector{Namespace: "shop", Name: "kata"})
	if err != nil || pods[0].Sandbox.Isolated != "Kata Containers" {
		t.Errorf("%+v, %v", pods, err)
	}
}

func TestContainersOverDocker(t *testing.T) {
	web := fakeDocker{strings.Repeat("ab", 32), "web", "running", "runc", 4711}
	docker := serveDocker(t, web, fakeDocker{strings.Repeat("ac", 32), "old", "exited", "runc", 0})
	r := New(Sockets{CRI: []string{}, Docker: []string{docker}})
	want := cgroup.Container{ID: web.id, Name: "web", PID: 4711}
	for _, text := range []string{"web", web.id, "abab"} {
		if got, err := find(t, r, text); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	if _, err := find(t, r, "old"); !errors.Is(err, cgroup.ErrNotFound) || !strings.Contains(err.Error(), "it is exited") {
		t.Error(err)
	}
}

// A socket may be anybody's. Whoever cannot be asked is named, and nothing is taken for all that there is.
// An ID that is the beginning of two means both, so that whoever wants one target is told of them; with one letter more it is one.
func TestPrefixOfTwo(t *testing.T) {
	one, two := fakeDocker{"beef" + strings.Repeat("0", 60), "web", "running", "runc", 1}, fakeDocker{"beef" + strings.Repeat("1", 60), "db", "running", "runc", 2}
	r := New(Sockets{CRI: []string{}, Docker: []string{serveDocker(t, one, two)}})
	for text, want := range map[string][]string{"beef": {one.id, two.id}, "beef1": {two.id}, "web": {one.id}} {
		if got, err := find(t, r, text); err != nil || !slices.Equal(ids(got), want) {
			t.Errorf("%s: %v, %v; want %v", text, ids(got), err, want)
		}
	}
}

func TestSocketsOfTheWrongKind(t *testing.T) {
	f := &fakeCRI{}
	f.container(f.pod("shop", "web-0", nil), "app")
	good, docker, withoutCRI := serveCRI(t, f), serveDocker(t), serveCRI(t, nil)
	dead, listener := listen(t)
	listener.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, stale := listen(t)
	stale.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	stale.Close()
	for _, test := range []struct {
		name    string
		sockets Sockets
		want    string
	}{
		{"Docker's as CRI", Sockets{CRI: []string{good, docker}}, docker + " for its pods: it is not there, or speaks something else than the CRI"},
		{"CRI as Docker's", Sockets{CRI: []string{good}, Docker: []string{good}}, good + " for its containers: it is not there, or speaks something else than Docker's API"},
		{"containerd without CRI", Sockets{CRI: []string{withoutCRI}}, "does not serve the CRI"},
		{"gone", Sockets{CRI: []string{good, dead}}, "no such file"},
		{"no socket", Sockets{CRI: []string{file}}, file + " who runs: it is no socket"},
		{"nobody listens", Sockets{CRI: []string{closed}}, closed + " for its pods: it is not there"},
		{"nobody listens at Docker's", Sockets{CRI: []string{}, Docker: []string{closed}}, "connection refused"},
		{"none", Sockets{CRI: []string{}, Docker: []string{}}, "name it in the configuration"},
	} {
		got, err := find(t, New(test.sockets), "app")
		if err == nil || !strings.Contains(err.Error(), test.want) || test.name != "none" && !errors.As(err, new(*cgroup.RuntimeError)) {
			t.Errorf("%s: %v, %v; want %q", test.name, got, err, test.want)
		}
	}
	if _, err := New(Sockets{CRI: []string{}}).Pods(t.Context(), cgroup.PodSelector{Namespace: "shop"}); err == nil || !strings.Contains(err.Error(), "runtimes.cri") {
		t.Error(err)
	}
	// Docker's own containerd has no CRI: nobody named it, so it is passed over.
	c := &Runtimes{sockets: Sockets{CRI: []string{withoutCRI, good, dead}, Docker: []string{}}, foundCRI: true}
	if got, err := find(t, c, "app"); err != nil || len(got) != 1 {
		t.Errorf("found by itself: %v, %v", got, err)
	}
}

// A runtime that does not answer costs a question its patience, or the caller's.
func TestRuntimeHangs(t *testing.T) {
	r := New(Sockets{CRI: []string{serveCRI(t, &fakeCRI{hangs: true})}, Docker: []string{}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Containers(ctx, cgroup.ContainerSelector{Text: "app"}); err == nil || !strings.Contains(err.Error(), "did not answer within") {
		t.Error(err)
	}
}

// TestRuntimeNoticesFirst: a runtime that says itself that the time is over is told of as one that says nothing.
func TestRuntimeNoticesFirst(t *testing.T) {
	err := failed(t.Context(), "/run/runtime.sock", "its pods", connect.NewError(connect.CodeDeadlineExceeded, errors.New("CANCEL; received from peer")))
	if !strings.Contains(err.Error(), "did not answer within") {
		t.Error(err)
	}
}

func TestSocketsAreNamedFromTheRoot(t *testing.T) {
	if err := (Sockets{CRI: []string{"containerd.sock"}}).Validate(); err == nil || !strings.Contains(err.Error(), `"containerd.sock"`) {
		t.Error(err)
	}
	if err := DefaultSockets().Validate(); err != nil {
		t.Error(err)
	}
}
