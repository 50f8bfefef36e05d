package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
	"faultd/history"
	"faultd/test/powercut"
	"faultd/test/vm/guest"
)

// TestExampleReboots runs twice: it carries out the example that reboots its node, and finds after the boot what the daemon and the history tell.
func TestExampleReboots(t *testing.T) {
	if os.Getenv("FAULTD_TEST_REBOOTS") != "1" {
		t.Skip("needs a virtual machine that may reboot: make test-powercut")
	}
	n := newNodeIn(t, powercut.Dir)
	switch boot := os.Getenv(guest.BootVar); boot {
	case "1":
		n.rebootsByExample(t)
	case "2":
		n.tellsOfReboot(t)
	default:
		t.Fatalf("this is boot %q", boot)
	}
}

// rebootHistory is where the runs are, on the disk that outlives the machine.
var rebootHistory = filepath.Join(powercut.Dir, "history")

// rebootsByExample does not return, unless an emulated machine was so slow that the run's lease lapsed: then it is tried again.
func (n *node) rebootsByExample(t *testing.T) {
	t.Helper()
	customers := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer customers.Close()
	text, err := os.ReadFile("../../examples/node-rebooted.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document := strings.NewReplacer("http://checkout.staging.example/checkout", customers.URL, "before: 10s", "before: 1s").Replace(string(text))
	path := filepath.Join(t.TempDir(), "experiment.yaml")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		out, err := exec.Command(faultd(t), "--socket", n.socket(), "run", path, "--history", rebootHistory).CombinedOutput()
		t.Logf("the node did not go down: %v: %s", err, out)
		if !strings.Contains(string(out), "lease lapsed") {
			break
		}
	}
	t.FailNow()
}

// tellsOfReboot: the run was interrupted, and its fault did what it was to.
func (n *node) tellsOfReboot(t *testing.T) {
	t.Helper()
	out, err := exec.Command(faultd(t), "--socket", n.socket(), "-o", "json", "history", "--history", rebootHistory).Output()
	var runs []history.Run
	if err == nil {
		err = json.Unmarshal(out, &runs)
	}
	if err != nil || len(runs) == 0 {
		t.Fatalf("the history has %s, %v", out, err)
	}
	last := runs[len(runs)-1]
	expect(t, "the experiment", last.Experiment, "node-rebooted")
	expect(t, "its verdict", last.Verdict, string(experiment.Interrupted))
	report, err := exec.Command(faultd(t), "--socket", n.socket(), "report", "--history", rebootHistory, last.ID).Output()
	if err != nil {
		t.Error(err)
	}
	expectText(t, "the report", string(report), string(experiment.Interrupted))
	list, err := n.client.List(context.Background(), connect.NewRequest(&v1.ListRequest{}))
	if err != nil || len(list.Msg.GetFaults()) == 0 {
		t.Fatalf("the daemon knows %v, %v", list, err)
	}
	f := list.Msg.GetFaults()[len(list.Msg.GetFaults())-1]
	expect(t, "the fault", fmt.Sprint(f.GetState(), ", ", f.GetVerdict(), ", ", f.GetReason()), "ended, injected, node went down")
}
