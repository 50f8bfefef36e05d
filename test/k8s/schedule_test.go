package k8s

import (
	"context"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// often is a schedule that nothing is wrong with.
const often = `apiVersion: faultd.io/v1alpha1
kind: Schedule
metadata: {name: often}
spec:
  repeat: {cron: "30 10 * * mon-fri", timeZone: Europe/Berlin}
  historyLimit: 0
  experiment:
    hypothesis: it sells
    target: {pods: "?app=web", mode: percent, value: 10}
    faults: [{name: gone, percent: 50, connect: {errno: EPERM}}]
    duration: 1m
    probes: [{name: shop, tcp: {address: "127.0.0.1:80"}, onFailure: abort}]
`

// TestSchedules: what is wrong is refused with its field, of the experiment too.
func TestSchedules(t *testing.T) {
	c := client(t)
	for name, test := range map[string]struct {
		change []string
		want   string // "": accepted
	}{
		"good":                    {nil, ""},
		"by chance":               {[]string{`cron: "30 10 * * mon-fri"`, "meanDays: 5"}, ""},
		"no time":                 {[]string{`cron: "30 10 * * mon-fri", `, ""}, "spec.repeat"},
		"two times":               {[]string{"timeZone:", "meanDays: 5, timeZone:"}, "spec.repeat"},
		"no repeat":               {[]string{`  repeat: {cron: "30 10 * * mon-fri", timeZone: Europe/Berlin}` + "\n", ""}, "spec.repeat"},
		"a long history":          {[]string{"historyLimit: 0", "historyLimit: 101"}, "spec.historyLimit"},
		"unknown field":           {[]string{"historyLimit: 0", "successfulHistoryLimit: 1"}, "spec.successfulHistoryLimit"},
		"an experiment's field":   {[]string{"percent: 50", "percnt: 50"}, "spec.experiment.faults[0].percnt"},
		"an experiment's value":   {[]string{"percent: 50", "percent: 101"}, "spec.experiment.faults[0].percent"},
		"an experiment's command": {[]string{`tcp: {address: "127.0.0.1:80"}`, "command: {argv: [/faultd]}"}, "spec.experiment.probes"},
		"again and again":         {[]string{"    duration: 1m", "    duration: 1m\n    repeat: {cron: '* * * * *'}"}, "spec.experiment.repeat"},
		"a name that is too long": {[]string{"name: often", "name: " + strings.Repeat("a", 48)}, "metadata.name"},
	} {
		t.Run(name, func(t *testing.T) {
			options := metav1.CreateOptions{FieldValidation: "Strict", DryRun: []string{"All"}}
			_, err := c.Resource(schedules).Namespace("shop").Create(context.Background(), change(t, often, test.change...), options)
			if !fits(err, test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestScheduleClaim: of two nodes that saw the same version one writes the status, and what it left out is gone.
func TestScheduleClaim(t *testing.T) {
	c := client(t)
	made := create(t, c, "shop", object(t, often))
	claim := func(version, text string) (*unstructured.Unstructured, error) {
		part := object(t, "{apiVersion: faultd.io/v1alpha1, kind: Schedule, metadata: {name: often, uid: "+string(made.GetUID())+", resourceVersion: '"+version+"'}, status: "+text+"}")
		return c.Resource(schedules).Namespace("shop").ApplyStatus(context.Background(), "often", part, metav1.ApplyOptions{FieldManager: "faultd-schedule", Force: true})
	}
	first, err := claim(made.GetResourceVersion(), "{phase: waiting, message: 'skipped', nextTime: '2026-11-26T10:30:00Z'}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(made.GetResourceVersion(), "{phase: over}"); !apierrors.IsConflict(err) {
		t.Errorf("who came second: %v", err)
	}
	second, err := claim(first.GetResourceVersion(), "{phase: suspended}")
	if err != nil {
		t.Fatal(err)
	}
	status, _, _ := unstructured.NestedMap(second.Object, "status")
	if len(status) != 1 || status["phase"] != "suspended" || second.GetGeneration() != made.GetGeneration() {
		t.Errorf("%v", second.Object)
	}
	if _, err := claim(second.GetResourceVersion(), "{phase: dancing}"); !fits(err, "status.phase") {
		t.Errorf("a phase that is none: %v", err)
	}
}
