package k8s

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// crowd is how many nodes take part.
const crowd = 30

// TestCrowd: however many nodes carry out an experiment, its object is written a few times, and each node has its own record. The nodes are
// simulated, with the agent's own code, and have the rights of its role.
func TestCrowd(t *testing.T) {
	c := client(t)
	open(t, c)
	versions := watchVersions(t, c, fmt.Sprint("first-", crowd))
	simulate(t, "-one", fmt.Sprint(crowd))
	seen := <-versions
	// The first node begins; somebody is hurt; it ends. In between numbers are told, of so many nodes every 3 s at most: more often only where
	// the server is slow.
	if seen.changes < 2 || seen.changes > crowd/2 {
		t.Errorf("the object was written %d times, want 2 to %d", seen.changes, crowd/2)
	}
	if ended, _, _ := unstructured.NestedInt64(seen.last.Object, "status", "nodes", "ended"); ended != crowd {
		t.Errorf("it ended on %d nodes: %v", ended, seen.last.Object["status"])
	}
	list, err := c.Resource(nodeRecords).Namespace("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "faultd.io/experiment-uid=" + string(seen.last.GetUID())})
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]bool{}
	for i := range list.Items {
		record, _, _ := unstructured.NestedMap(list.Items[i].Object, "status")
		if owner := list.Items[i].GetOwnerReferences(); record["phase"] != "ended" || record["verdict"] != "confirmed" || len(owner) != 1 || owner[0].UID != seen.last.GetUID() {
			t.Errorf("a record of %v: %v", owner, record)
		}
		nodes[fmt.Sprint(record["name"])] = true
	}
	if len(nodes) != crowd {
		t.Errorf("%d nodes have a record, want %d", len(nodes), crowd)
	}
	t.Logf("%d nodes: the object was written %d times", crowd, seen.changes)
}

// TestCrowdWaits: of the pods that come at once, on as many nodes, while an experiment waits for them, so many are hurt as it asks for.
func TestCrowdWaits(t *testing.T) {
	open(t, client(t))
	simulate(t, "-one", fmt.Sprint(crowd), "-some", fmt.Sprint(crowd/3))
}

// simulate runs simulated nodes, which may do what their role says.
func simulate(t *testing.T, args ...string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fleet")
	build := exec.Command("go", "build", "-o", program, "./test/fleet")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program, append([]string{"-kubeconfig", kubeconfig(t)}, args...)...).CombinedOutput()
	if denied := agents.denied(); len(denied) > 0 {
		slices.Sort(denied)
		t.Errorf("the role does not allow %q", slices.Compact(denied))
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// history is what was seen of an object: how often it changed, and how it was before it was deleted.
type history struct {
	changes int
	last    *unstructured.Unstructured
}

// watchVersions watches an experiment until it is deleted.
func watchVersions(t *testing.T, c dynamic.Interface, name string) <-chan history {
	t.Helper()
	// Without a version a watch would begin with what there is: here there is nothing.
	w, err := c.Resource(experiments).Namespace("shop").Watch(context.Background(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	found := make(chan history, 1)
	go func() {
		var h history
		for event := range w.ResultChan() {
			object, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			h.last = object
			switch event.Type {
			case watch.Modified:
				h.changes++
			case watch.Deleted:
				found <- h
				return
			}
		}
		found <- h
	}()
	return found
}
