package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"faultd/test/vm/guest"
)

// canaryKernel is one on which QEMU 7.2 with parallel processors failed every time.
const canaryKernel = "6.12"

// toggles are many times what QEMU 7.2 with parallel processors needs to fail; 10.0.2 so run takes
// some thousands, too many for every run of the tests.
const toggles = 1000

// TestTextPatchingCanary makes sure that QEMU, run the way we do, survives a guest kernel that
// patches its own text while its other processor runs it: everything we attach patches text. QEMU
// 7.2 does not, nor does 10.0.2 with a thread for each processor (see defaultAccel). Such crashes
// are rare enough in other tests to look like flaky tests. On the host it boots a machine in which
// it runs itself.
func TestTextPatchingCanary(t *testing.T) {
	if os.Getenv(guest.KernelVar) != "" {
		patchText(t)
		return
	}
	k := needKernel(t, canaryKernel)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out watcher
	code, diag := boot(t, t.Context(), &out, "-kernel", k.name, "-timeout", "5m", "--", self, "-test.run=^"+t.Name()+"$", "-test.v")
	if code != 0 {
		t.Fatalf("QEMU fails guests that patch their own text, no test in it can be trusted: is it too old (%s), does it emulate processors in parallel?\nexit code %d\n%s\n%s",
			installQEMU, code, out.text.String(), diag)
	}
}

// patchText switches a static key of the scheduler on and off, by giving a cgroup a processor limit
// and taking it away, while four loops keep the patched code busy.
func patchText(t *testing.T) {
	group := "/sys/fs/cgroup/canary"
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	for range 4 {
		loop := exec.Command("sh", "-c", "while :; do sleep 0.01; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		defer loop.Wait()
		defer loop.Process.Kill()
	}
	for i := range toggles {
		limit := "max 100000"
		if i%2 == 0 {
			limit = "50000 100000"
		}
		if err := os.WriteFile(filepath.Join(group, "cpu.max"), []byte(limit), 0); err != nil {
			t.Fatal(err)
		}
	}
}
