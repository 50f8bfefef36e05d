package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// fakeRuntimes gives what it has, whatever is meant.
type fakeRuntimes struct {
	containers []Container
	pods       []Pod
	err        error
}

func (f fakeRuntimes) Containers(context.Context, ContainerSelector) ([]Container, error) {
	return f.containers, f.err
}

func (f fakeRuntimes) Pods(context.Context, PodSelector) ([]Pod, error) { return f.pods, f.err }

func (f fakeRuntimes) Starts(context.Context) <-chan struct{} { return nil }

// Shapes of paths as runtimes tell them, and where their processes are then.
func TestPathOfContainer(t *testing.T) {
	const id = "0d6f5a"
	for _, test := range []struct{ name, told, seen, want, err string }{
		{name: "containerd, cgroupfs", told: "/kubepods/burstable/pod-1/0d6f5a", seen: "/kubepods/burstable/pod-1/0d6f5a", want: "/kubepods/burstable/pod-1/0d6f5a"},
		{name: "containerd, systemd", told: "kubepods-burstable-pod_1.slice:cri-containerd:0d6f5a",
			seen: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_1.slice/cri-containerd-0d6f5a.scope",
			want: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_1.slice/cri-containerd-0d6f5a.scope"},
		{name: "CRI-O, systemd", told: "kubepods-pod_1.slice:crio:0d6f5a", seen: "/kubepods.slice/kubepods-pod_1.slice/crio-0d6f5a.scope/container",
			want: "/kubepods.slice/kubepods-pod_1.slice/crio-0d6f5a.scope"},
		{name: "CRI-O, cgroupfs", told: "/kubepods/pod-1/crio-0d6f5a", seen: "/kubepods/pod-1/crio-0d6f5a", want: "/kubepods/pod-1/crio-0d6f5a"},
		{name: "without a slice", told: ":cri-containerd:0d6f5a", seen: "/system.slice/cri-containerd-0d6f5a.scope", want: "/system.slice/cri-containerd-0d6f5a.scope"},
		{name: "the root slice", told: "-.slice:cri:0d6f5a", seen: "/cri-0d6f5a.scope", want: "/cri-0d6f5a.scope"},
		{name: "a process moved by a systemd inside", told: "/k8s.io/0d6f5a", seen: "/k8s.io/0d6f5a/init.scope", want: "/k8s.io/0d6f5a"},
		{name: "a runtime in a cgroup namespace", told: "/kubepods/pod-1/0d6f5a", seen: "/docker/node/kubepods/pod-1/0d6f5a", want: "/docker/node/kubepods/pod-1/0d6f5a"},
		{name: "Docker, cgroupfs", seen: "/docker/0d6f5a/x", want: "/docker/0d6f5a"},
		{name: "Docker, systemd", seen: "/system.slice/docker-0d6f5a.scope", want: "/system.slice/docker-0d6f5a.scope"},
		{name: "Podman, systemd", seen: "/machine.slice/libpod-0d6f5a.scope/container", want: "/machine.slice/libpod-0d6f5a.scope"},

		{name: "version 1 alone", told: "/k8s.io/0d6f5a", seen: "/", err: "no cgroup of the container's own"},
		{name: "version 1 alone, Docker", seen: "/system.slice/docker.service", err: "let the runtime use cgroup v2"},
		{name: "another process", told: "/k8s.io/0d6f5a", seen: "/k8s.io/0d6f5abc", err: "no cgroup of the container's own"},
		{name: "the root", told: "/", seen: "/k8s.io/x", err: "no cgroup of the container's own"},
		{name: "nonsense", told: "a:b", seen: "/a", err: "neither a path nor SLICE:PREFIX:NAME"},
		{name: "out of the tree", told: "/../x", seen: "/x", err: `contains ".."`},
	} {
		h := &Hierarchy{mount: "/sys/fs/cgroup", proc: t.TempDir()}
		write(t, h.procFile(7, "cgroup"), "0::"+test.seen+"\n")
		got, err := h.pathOfContainer(Container{ID: id, Name: "web", PID: 7, CgroupsPath: test.told})
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

// inTree is a container whose process is in a cgroup of the fake tree.
func inTree(t *testing.T, h *Hierarchy, pod, name string, pid int, path string) Container {
	t.Helper()
	write(t, h.procFile(pid, "cgroup"), "0::"+path+"\n")
	write(t, h.procFile(pid, "stat"), fmt.Sprintf("%d (app) S 1 1 1 0 -1 0 0", pid))
	return Container{ID: filepath.Base(path), Name: name, Pod: pod, PID: pid, CgroupsPath: path}
}

func TestResolveContainers(t *testing.T) {
	h := fakeTree(t, "kubepods/poduid-1/s1", "kubepods/poduid-1/a1", "kubepods/poduid-1/b1", "k8s.io/a2", "k8s.io/s2", "k8s.io/b2",
		"kubepods.slice/kubepods-poduid_3.slice/c3")
	h.proc = t.TempDir()
	sandbox := inTree(t, h, "shop/web-0", "", 11, "/kubepods/poduid-1/s1")
	app, proxy := inTree(t, h, "shop/web-0", "app", 12, "/kubepods/poduid-1/a1"), inTree(t, h, "shop/web-0", "proxy", 13, "/kubepods/poduid-1/b1")
	loose, looser := inTree(t, h, "shop/db-0", "app", 22, "/k8s.io/a2"), inTree(t, h, "shop/db-0", "log", 23, "/k8s.io/b2")
	systemd := inTree(t, h, "shop/x", "c", 33, "/kubepods.slice/kubepods-poduid_3.slice/c3")
	web := Pod{Namespace: "shop", Name: "web-0", UID: "uid-1", Sandbox: &sandbox, Containers: []Container{app, proxy}}
	db := Pod{Namespace: "shop", Name: "db-0", UID: "uid-2", Containers: []Container{loose, looser}}
	kata := app
	kata.Isolated = "Kata Containers"
	gone := app
	gone.PID = 0
	hypervisor := inTree(t, h, "", "vm", 44, "/k8s.io/s2")
	write(t, h.procFile(44, "stat"), "44 (qemu-system-x86) S 1 1 1 0 -1 0 0")
	for _, test := range []struct {
		name, selector string
		runtimes       Runtimes
		want, err      string
		is             error
	}{
		{name: "container", selector: "container:app", runtimes: fakeRuntimes{containers: []Container{app}}, want: "/kubepods/poduid-1/a1"},
		{name: "pod", selector: "pod:shop/web-0", runtimes: fakeRuntimes{pods: []Pod{web}}, want: "/kubepods/poduid-1"},
		{name: "pod without a sandbox, systemd", selector: "pod:shop/x", want: "/kubepods.slice/kubepods-poduid_3.slice",
			runtimes: fakeRuntimes{pods: []Pod{{Namespace: "shop", Name: "x", UID: "uid-3", Containers: []Container{systemd}}}}},
		{name: "container of a pod", selector: "pod:shop/web-0#app", want: "/kubepods/poduid-1/a1",
			runtimes: fakeRuntimes{pods: []Pod{{Namespace: "shop", Name: "web-0", UID: "uid-1", Sandbox: &sandbox, Containers: []Container{app}}}}},
		{name: "two of a name", selector: "container:app", runtimes: fakeRuntimes{containers: []Container{app, loose}}, is: ErrAmbiguous,
			err: "it means 2 targets; write one of: pod:shop/web-0#app pod:shop/db-0#app"},
		{name: "two of no pod", selector: "container:~.", runtimes: fakeRuntimes{containers: []Container{{ID: "a1", Name: "web", PID: 12}, {ID: "b1", Name: "db", PID: 13}}}, is: ErrAmbiguous,
			err: "container:a1 (web) container:b1 (db)"},
		{name: "pods", selector: "pods:shop", runtimes: fakeRuntimes{pods: []Pod{web, db}}, is: ErrAmbiguous,
			err: "3 targets; write one of: pod:shop/web-0 pod:shop/db-0#app pod:shop/db-0#log"},
		{name: "nothing", selector: "container:x", runtimes: fakeRuntimes{err: fmt.Errorf("%w: no such container", ErrNotFound)}, is: ErrNotFound, err: "no such container"},
		{name: "Kata", selector: "container:x", runtimes: fakeRuntimes{containers: []Container{kata}}, err: "container a1 (app of pod shop/web-0): it runs under Kata Containers"},
		{name: "hypervisor", selector: "container:x", runtimes: fakeRuntimes{containers: []Container{hypervisor}}, err: "it runs under qemu-system-x86"},
		{name: "no process", selector: "container:x", runtimes: fakeRuntimes{containers: []Container{gone}}, is: ErrNotFound, err: "it has no process"},
		{name: "no runtimes", selector: "container:x", err: "no container runtime can be asked"},
	} {
		h.Runtimes = test.runtimes
		got, err := h.Resolve(t.Context(), mustParse(t, test.selector))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%s: %q, %v; want %q", test.name, got.Path, err, test.err)
			}
			continue
		}
		if err != nil || got.Path != test.want || got.Namespace != "shop" {
			t.Errorf("%s: %q in namespace %q, %v; want %q", test.name, got.Path, got.Namespace, err, test.want)
		}
	}
	h.Runtimes = fakeRuntimes{pods: []Pod{web, db}}
	all, err := h.ResolveAll(t.Context(), mustParse(t, "pods:shop"))
	if err != nil || len(all) != 3 || all[0].Path != "/k8s.io/a2" || all[1].Path != "/k8s.io/b2" || all[2].Path != "/kubepods/poduid-1" {
		t.Errorf("all pods: %+v, %v", all, err)
	}
}

// Whoever follows a selector is not kept from it by one that can be no target, nor by nobody.
func TestFollowing(t *testing.T) {
	h := fakeTree(t, "k8s.io/a", "k8s.io/b")
	h.proc = t.TempDir()
	app, kata, gone := inTree(t, h, "shop/web-0", "app", 12, "/k8s.io/a"), inTree(t, h, "shop/web-1", "app", 13, "/k8s.io/b"), Container{ID: "x"}
	kata.Isolated = "Kata Containers"
	for _, test := range []struct {
		runtimes      fakeRuntimes
		want, refused int
		err           string
	}{
		{runtimes: fakeRuntimes{containers: []Container{kata, app, gone}}, want: 1, refused: 1},
		{runtimes: fakeRuntimes{containers: []Container{gone}}},
		{runtimes: fakeRuntimes{err: fmt.Errorf("%w: no such container", ErrNotFound)}},
		{runtimes: fakeRuntimes{err: &RuntimeError{Socket: "/x", Question: "who runs", Err: errors.New("it hangs")}}, err: "ask the container runtime at /x who runs: it hangs"},
	} {
		h.Runtimes = test.runtimes
		targets, refused, err := h.Following(t.Context(), mustParse(t, "container:app"))
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) || len(targets) != test.want || len(refused) != test.refused {
			t.Errorf("%v: %v, %v, %v", test.runtimes, targets, refused, err)
		}
	}
}
