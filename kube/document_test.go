package kube

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// written is an Experiment object with some fields of its spec changed.
func written(change func(spec map[string]any)) *unstructured.Unstructured {
	of := spec("1s")
	change(of)
	return object("faultd.io/v1alpha1", "Experiment", "shop", "slow", of)
}

func TestDocuments(t *testing.T) {
	probe := func(kind string, with map[string]any) func(map[string]any) {
		return func(spec map[string]any) {
			spec["probes"] = []any{map[string]any{"name": "p", kind: with}}
		}
	}
	target := func(t map[string]any) func(map[string]any) {
		return func(spec map[string]any) { spec["target"] = t }
	}
	for name, test := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"good":              {func(map[string]any) {}, ""},
		"command":           {probe("command", map[string]any{"argv": []any{"true"}}), "spec.probes[0].command: it would be done in faultd's own container"},
		"log":               {probe("log", map[string]any{"path": "/x", "match": "y"}), "spec.probes[0].log"},
		"key":               {probe("http", map[string]any{"url": "https://a", "tls": map[string]any{"key": "/x"}}), "spec.probes[0].http.tls.key"},
		"http":              {probe("http", map[string]any{"url": "https://a", "tls": map[string]any{"insecure": true}}), ""},
		"stop file":         {func(s map[string]any) { s["stop"] = map[string]any{"file": "/x"} }, "spec.stop.file"},
		"repeat":            {func(s map[string]any) { s["repeat"] = map[string]any{"cron": "0 9 * * *"} }, "spec.repeat: an Experiment object is carried out once"},
		"unit":              {target(map[string]any{"unit": "redis"}), `"unit:redis" means no pods`},
		"cgroup":            {target(map[string]any{"selectors": []any{"cgroup:/"}, "mode": "all"}), `"cgroup:/" means no pods`},
		"another namespace": {target(map[string]any{"pods": "bank?app=web", "mode": "all"}), "pods:bank?app=web is in another namespace; an Experiment of shop hurts pods of shop alone"},
		"another pod":       {target(map[string]any{"pod": "bank/web-0"}), "pod:bank/web-0 is in another namespace"},
		"one of containers": {target(map[string]any{"pod": "web-0#app,proxy", "mode": "one"}), "in a cluster a mode chooses pods"},
		"all of containers": {target(map[string]any{"pod": "web-0#app,proxy", "mode": "all"}), ""},
		"follow":            {target(map[string]any{"pods": "?app=web", "follow": true}), "follow: true was given; an Experiment object hurts the pods that were there"},
		"no mode":           {target(map[string]any{"pods": "?app=web"}), "spec.target.mode: missing"},
		"bad parameter": {func(s map[string]any) {
			s["faults"].([]any)[0].(map[string]any)["connect"] = map[string]any{"errno": "EWHAT"}
		}, "spec.faults[0].connect.errno"},
		"bad rule, no probe": {func(s map[string]any) { delete(s, "probes") }, "spec.probes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readPlan(written(test.change), check)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestDocumentIsQualified(t *testing.T) {
	o := written(func(spec map[string]any) {
		spec["target"] = map[string]any{"selectors": []any{"pods:?app=web", "pod:web-0#app", "pod:shop/web-1"}, "mode": "all"}
	})
	o.SetAnnotations(map[string]string{ownerAnnotation: "team-shop"})
	o.SetLabels(map[string]string{"team": "shop", strings.Repeat("x", 200) + "/a": "long"})
	plan, err := readPlan(o, check)
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Faults[0].Selectors(); !slices.Equal(got, []string{"pods:shop?app=web", "pod:shop/web-0#app", "pod:shop/web-1"}) {
		t.Errorf("selectors %v", got)
	}
	if plan.Owner != "team-shop" || len(plan.Labels) != 1 || plan.Name != "slow" {
		t.Errorf("%q %v %q", plan.Owner, plan.Labels, plan.Name)
	}
	before, _, _ := unstructured.NestedSlice(o.Object, "spec", "target", "selectors")
	if before[0] != "pods:?app=web" {
		t.Error("the object itself was changed")
	}
}
