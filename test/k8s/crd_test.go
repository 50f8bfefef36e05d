package k8s

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// TestExamples: every example for Kubernetes is accepted as it stands.
func TestExamples(t *testing.T) {
	c := client(t)
	open(t, c)
	files, err := filepath.Glob(examplesDir + "/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples are %q, %v", files, err)
	}
	for _, file := range files {
		create(t, c, "shop", example(t, file))
	}
}

// TestRefused: what is wrong is refused, with the field that it is in.
func TestRefused(t *testing.T) {
	c := client(t)
	open(t, c)
	for name, test := range map[string]struct {
		change []string
		want   string
	}{
		"unknown field":          {[]string{"percent: 50", "percnt: 50"}, "spec.faults[0].percnt"},
		"percent 0":              {[]string{"percent: 50", "percent: 0"}, "spec.faults[0].percent"},
		"percent 101":            {[]string{"percent: 50", "percent: 101"}, "spec.faults[0].percent"},
		"a text for a number":    {[]string{"percent: 50", "percent: much"}, "spec.faults[0].percent"},
		"a word that is not one": {[]string{"onFailure: abort", "onFailure: panic"}, "spec.probes[0].onFailure"},
		"no hypothesis":          {[]string{"  hypothesis: it sells\n", ""}, "spec.hypothesis"},
		"an empty hypothesis":    {[]string{"it sells", `""`}, "spec.hypothesis"},
		"no faults":              {[]string{"{name: gone, percent: 50, connect: {errno: EPERM}}", ""}, "spec.faults"},
		"no kind":                {[]string{", connect: {errno: EPERM}", ""}, "spec.faults[0]"},
		"two kinds":              {[]string{"connect: {", "dns: {answers: [NXDOMAIN]}, connect: {"}, "spec.faults[0]"},
		"no check":               {[]string{`, tcp: {address: "127.0.0.1:80"}`, ""}, "spec.probes[0]"},
		"an address of nothing":  {[]string{"127.0.0.1:80", "127.0.0.1"}, "spec.probes[0].tcp.address"},
		"no target":              {[]string{`  target: {pods: "?app=web", mode: percent, value: 10}` + "\n", ""}, "spec.target"},
		"two targets in one":     {[]string{"target: {", "target: {pod: web-0, "}, "spec.target"},
		"a mode without value":   {[]string{", value: 10", ""}, "spec.target.value"},
		"a value without mode":   {[]string{"mode: percent, ", ""}, "spec.target.value"},
		"a target without name":  {[]string{"  target: {pods", "  targets: [{pods: '?a=b'}]\n  target: {pods"}, "spec.targets"},
		"a target that is not":   {[]string{"{name: gone,", "{name: gone, target: other,"}, "spec.faults"},
		"a name twice":           {[]string{"faults: [{", "faults: [{name: gone, dns: {answers: [NXDOMAIN]}}, {"}, "spec.faults[1]"},
		"after nothing":          {[]string{"{name: gone,", "{name: gone, after: other,"}, "spec.faults"},
		"after itself":           {[]string{"{name: gone,", "{name: gone, after: gone,"}, "spec.faults"},
		"duration and schedule":  {[]string{"duration: 1m", "duration: 1m\n  schedule: {bursts: {'on': 1s, 'off': 1s, count: 2}}"}, "spec.duration"},
		// Kubernetes reads YAML 1.1, where these words are booleans.
		"on and off without quotes": {[]string{"duration: 1m", "schedule: {bursts: {on: 1s, off: 1s, count: 2}}"}, "spec.schedule.bursts.true"},
		"two schedules":             {[]string{"duration: 1m", "schedule: {ramp: [1, 2], every: 1s, bursts: {'on': 1s, 'off': 1s, count: 2}}"}, "spec.schedule"},
		"again and again":           {[]string{"duration: 1m", "duration: 1m\n  repeat: {cron: '* * * * *'}"}, "spec.repeat"},
		"a command":                 {[]string{`tcp: {address: "127.0.0.1:80"}`, "command: {argv: [/faultd]}"}, "spec.probes"},
		"a file to stop":            {[]string{"duration: 1m", "duration: 1m\n  stop: {file: /tmp/stop}"}, "spec.stop.file"},
		"a counter of nothing":      {[]string{`tcp: {address: "127.0.0.1:80"}`, "counter: {fault: other}"}, "spec.probes"},
		"a name with a dot":         {[]string{"{name: shop}", "{name: shop.1}"}, "metadata.name"},
		"a newer version":           {[]string{"v1alpha1", "v1"}, "could not find the requested resource"},
		"a negative number":         {[]string{"percent: 50", "everyNth: -1"}, "spec.faults[0].everyNth"},
	} {
		t.Run(name, func(t *testing.T) {
			o := change(t, good, test.change...)
			resource := experiments
			resource.Version = strings.TrimPrefix(o.GetAPIVersion(), "faultd.io/")
			options := metav1.CreateOptions{FieldValidation: "Strict", DryRun: []string{"All"}}
			_, err := c.Resource(resource).Namespace("shop").Create(context.Background(), o, options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestRefusedPolicies: a policy that makes no sense is refused too.
func TestRefusedPolicies(t *testing.T) {
	c := client(t)
	for spec, want := range map[string]string{
		"{allowedKinds: [name]}":             "spec.allowedKinds[0]",
		"{safetyLever: {engaged: true}}":     "spec.safetyLever",
		"{limits: {percent: 200}}":           "spec.limits.percent",
		"{protectedNamespace: [monitoring]}": "spec.protectedNamespace",
	} {
		o := change(t, anything, "{optIn: {faultd.io/chaos: allowed}}", spec)
		options := metav1.CreateOptions{FieldValidation: "Strict", DryRun: []string{"All"}}
		if _, err := c.Resource(chaosPolicies).Create(context.Background(), o, options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", spec, err, want)
		}
	}
}

// status is what the node that sums up applies; with a version only if the object has not changed.
func status(t *testing.T, name, version, text string) (*unstructured.Unstructured, error) {
	t.Helper()
	part := object(t, "{apiVersion: faultd.io/v1alpha1, kind: Experiment, metadata: {name: "+name+"}, status: "+text+"}")
	part.SetResourceVersion(version)
	return client(t).Resource(experiments).Namespace("shop").ApplyStatus(context.Background(), name, part, metav1.ApplyOptions{FieldManager: "faultd-summary", Force: true})
}

// TestStatus: of two nodes that saw the same version one writes the status; what it left out is gone, and it is no new generation.
func TestStatus(t *testing.T) {
	c := client(t)
	open(t, c)
	made := create(t, c, "shop", object(t, good))
	first, err := status(t, "shop", made.GetResourceVersion(), "{phase: running, pods: 2, summarizer: a, nodes: {running: 1}, conditions: [{type: Selected, status: 'True', reason: Chosen, lastTransitionTime: '2026-11-26T08:00:00Z'}]}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := status(t, "shop", made.GetResourceVersion(), "{phase: running, summarizer: b}"); !apierrors.IsConflict(err) {
		t.Errorf("who came second: %v", err)
	}
	waits := "{phase: pending, conditions: [{type: Selected, status: Unknown, reason: WaitingForPods, message: it waits, lastTransitionTime: '2026-11-26T08:00:00Z'}]}"
	if first, err = status(t, "shop", first.GetResourceVersion(), waits); err != nil {
		t.Fatal(err)
	}
	second, err := status(t, "shop", first.GetResourceVersion(), "{phase: running, summarizer: a, abortedOn: b, problems: [{node: b, verdict: aborted, message: so it was}]}")
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ := unstructured.NestedMap(second.Object, "status")
	if len(got) != 4 || got["abortedOn"] != "b" || second.GetGeneration() != made.GetGeneration() {
		t.Errorf("generation %d of %v", second.GetGeneration(), got)
	}
	for text, want := range map[string]string{
		"{phase: dancing}": "status.phase", "{nodes: {running: -1}}": "status.nodes.running", "{problems: [{verdict: bad, node: a}]}": "status.problems[",
		"{conditions: [{type: Happy, status: 'True', reason: R, lastTransitionTime: x}]}": "status.conditions[",
	} {
		if _, err := status(t, "shop", "", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// nodeRecord is what node a writes.
const nodeRecord = `apiVersion: faultd.io/v1alpha1
kind: NodeRecord
metadata:
  name: shop-a
  labels: {faultd.io/experiment: shop}
  ownerReferences: [{apiVersion: faultd.io/v1alpha1, kind: Experiment, name: shop, uid: 6c1e7a52-0000-4000-8000-000000000000}]
status: {experiment: shop, name: a, phase: running, stuck: true, counters: {injected: 3}, targets: [{pod: web-0, uid: u0}]}
`

// TestRecords: a record is made once, with what it says, is replaced as a whole, and says nothing that makes no sense.
func TestRecords(t *testing.T) {
	c := client(t)
	made := create(t, c, "shop", object(t, nodeRecord))
	if injected, _, _ := unstructured.NestedInt64(made.Object, "status", "counters", "injected"); injected != 3 {
		t.Errorf("it was made without what it says: %v", made.Object)
	}
	of := c.Resource(nodeRecords).Namespace("shop")
	if _, err := of.Create(context.Background(), object(t, nodeRecord), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second one: %v", err)
	}
	patch := func(status string) (*unstructured.Unstructured, error) {
		text := `[{"op":"replace","path":"/status","value":` + status + `}]`
		return of.Patch(context.Background(), "shop-a", types.JSONPatchType, []byte(text), metav1.PatchOptions{})
	}
	now, err := patch(`{"name":"a","phase":"ended","verdict":"confirmed"}`)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _ := unstructured.NestedMap(now.Object, "status"); len(status) != 3 || status["phase"] != "ended" {
		t.Errorf("it says %v", status)
	}
	for text, want := range map[string]string{
		`{"name":"a"}`: "status.phase", `{"phase":"ended"}`: "status.name", `{"name":"a","phase":"flying"}`: "status.phase", `{"name":"a","phase":"ended","verdict":"good"}`: "status.verdict",
	} {
		if _, err := patch(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestImmutable: the spec stays as it is once it runs, and afterwards; labels may change.
func TestImmutable(t *testing.T) {
	c := client(t)
	open(t, c)
	create(t, c, "shop", object(t, good))
	patch := func(text string) error {
		_, err := c.Resource(experiments).Namespace("shop").Patch(context.Background(), "shop", types.MergePatchType, []byte(text), metav1.PatchOptions{})
		return err
	}
	if err := patch(`{"spec":{"duration":"2m"}}`); err != nil {
		t.Errorf("before it runs: %v", err)
	}
	for _, phase := range []string{"running", "ended"} {
		if _, err := status(t, "shop", "", "{phase: "+phase+"}"); err != nil {
			t.Fatal(err)
		}
		if err := patch(`{"spec":{"duration":"3m"}}`); err == nil || !strings.Contains(err.Error(), "spec: ") {
			t.Errorf("%s: got %v", phase, err)
		}
		if err := patch(`{"metadata":{"labels":{"phase":"` + phase + `"}}}`); err != nil {
			t.Errorf("a label, %s: %v", phase, err)
		}
	}
}
