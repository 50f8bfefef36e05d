package k8s

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

const examplesDir = "../../examples/kubernetes"

// good is an experiment that nothing is wrong with.
const good = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: shop}
spec:
  hypothesis: it sells
  target: {pods: "?app=web", mode: percent, value: 10}
  faults: [{name: gone, percent: 50, connect: {errno: EPERM}}]
  duration: 1m
  probes: [{name: shop, tcp: {address: "127.0.0.1:80"}, onFailure: abort}]
`

// anything is the policy under which experiments of namespaces that opted in may do what they want, but to nodes.
const anything = `apiVersion: faultd.io/v1alpha1
kind: ChaosPolicy
metadata: {name: anything}
spec: {optIn: {faultd.io/chaos: allowed}}
`

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return o
}

func example(t testing.TB, file string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return object(t, string(text))
}

// change gives good with parts of its text replaced by others, in pairs.
func change(t testing.TB, text string, pairs ...string) *unstructured.Unstructured {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q to change", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return object(t, text)
}

// try says what the server would answer. Unknown fields are errors, as for kubectl.
func try(c dynamic.Interface, namespace string, o *unstructured.Unstructured) error {
	options := metav1.CreateOptions{FieldValidation: "Strict", DryRun: []string{"All"}}
	_, err := c.Resource(experiments).Namespace(namespace).Create(context.Background(), o, options)
	return err
}

// create makes an object that is gone when the test ends.
func create(t testing.TB, c dynamic.Interface, namespace string, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	var of dynamic.ResourceInterface = c.Resource(chaosPolicies)
	switch o.GetKind() {
	case "Experiment":
		of = c.Resource(experiments).Namespace(namespace)
	case "NodeRecord":
		of = c.Resource(nodeRecords).Namespace(namespace)
	case "Schedule":
		of = c.Resource(schedules).Namespace(namespace)
	}
	made, err := of.Create(context.Background(), o, metav1.CreateOptions{FieldValidation: "Strict"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = of.Delete(context.Background(), o.GetName(), metav1.DeleteOptions{}) })
	return made
}

// open lets experiments in, and waits until it holds.
func open(t testing.TB, c dynamic.Interface) {
	t.Helper()
	create(t, c, "", object(t, anything))
	eventually(t, func() error { return try(c, "shop", object(t, good)) }, "")
}

// eventually waits until an error has a text, or with "" until there is none: the server learns of policies by watching them.
func eventually(t testing.TB, err func() error, want string) {
	t.Helper()
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last = err(); fits(last, want) {
			return
		}
	}
	t.Errorf("got %v, want %q", last, want)
}

func fits(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}
