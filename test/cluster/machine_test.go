package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// machine is the node of a cluster: an emulated one with systemd, containerd and the kubelet.
type machine struct {
	c             *control
	driver        driver
	disk, console string
	kubeletPort   int
	qemu          *exec.Cmd
}

// boot starts it, for as long as the cluster is there.
func boot(c *control, d driver) *machine {
	c.t.Helper()
	m := &machine{c: c, driver: d, console: filepath.Join(c.dir, "console"), kubeletPort: freePort(c.t)}
	m.makeDisk()
	m.powerOn()
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("the end of the node's console:\n%s", tail(m.console, 40))
		}
	})
	return m
}

func (m *machine) powerOn() {
	m.c.t.Helper()
	m.qemu = start(m.c.t, m.c.dir, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1", "-m", "3G", "-display", "none",
		"-chardev", "file,id=console,append=on,path="+m.console, "-serial", "chardev:console", "-monitor", "none", "-nodefaults",
		"-kernel", os.Getenv("FAULTD_CLUSTER_KERNEL"),
		"-append", "console=ttyS0 root=/dev/nvme0n1 rw loglevel=3 net.ifnames=0 no_timer_check watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=90",
		"-drive", "file="+m.disk+",if=none,id=disk,format=raw,cache=unsafe", "-device", "nvme,drive=disk,serial=node",
		"-nic", fmt.Sprintf("user,model=virtio-net-pci,restrict=off,hostfwd=tcp:127.0.0.1:%d-:%d", m.kubeletPort, m.kubeletPort))
}

// reset takes the power from the machine, and gives it back. What was not written to its disk by then is lost.
func (m *machine) reset() {
	m.c.t.Helper()
	if err := m.qemu.Process.Kill(); err != nil {
		m.c.t.Fatalf("take the power from the node: %v", err)
	}
	_ = m.qemu.Wait() // that it was killed is no news
	m.powerOn()
}

// makeDisk is the system that run.sh made, with what belongs to this cluster.
func (m *machine) makeDisk() {
	c, t := m.c, m.c.t
	t.Helper()
	root := filepath.Join(c.dir, "root")
	shell(t, "cp", "-al", filepath.Join(c.built, "system"), root)
	t.Cleanup(func() { os.RemoveAll(root) }) // hard links: the system stays
	install := func(from, to string) { shell(t, "install", "-D", from, filepath.Join(root, to)) }
	write := func(to, text string) {
		c.keys.write("file", []byte(text))
		install(c.keys.path("file"), to)
	}
	extend := func(from, to, more string) {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(to, string(text)+more)
	}
	install(filepath.Join(c.built, "kubelet"), "usr/local/bin/kubelet")
	install("node/node.sh", "usr/local/bin/node.sh")
	install("node/static.yaml", "etc/kubernetes/manifests/static.yaml")
	install("node/cni.conflist", "etc/cni/net.d/pods.conflist")
	install(c.keys.path("ca.crt"), "etc/ca.crt")
	install(c.keys.path("kubelet.kubeconfig"), "etc/kubelet.kubeconfig")
	write("etc/node.env", fmt.Sprintf("API_PORT=%d\nNAMES_PORT=%d\n", c.port, c.namesPort))
	write("etc/modules-load.d/node.conf", "fuse\noverlay\nbridge\n")
	write("etc/hostname", nodeName+"\n")
	write("etc/resolv.conf", "nameserver 10.0.2.3\n")
	extend("node/kubelet.yaml", "etc/kubelet.yaml", fmt.Sprintf("port: %d\ncgroupDriver: %s\n", m.kubeletPort, m.driver))
	extend("node/containerd.toml", "etc/containerd/config.toml", fmt.Sprintf("SystemdCgroup = %t\n", m.driver == systemd))
	for _, unit := range []string{"node.service", "kubelet.service"} {
		install("node/"+unit, "etc/systemd/system/"+unit)
		shell(t, "ln", "-sf", "/etc/systemd/system/"+unit, filepath.Join(root, "etc/systemd/system/multi-user.target.wants", unit))
	}
	m.disk = filepath.Join(c.dir, "disk")
	shell(t, "mke2fs", "-q", "-t", "ext4", "-d", root, m.disk, "3G")
}

func shell(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
