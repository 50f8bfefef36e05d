package k8s

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestAdmission: experiments outside the rules are refused, by each of the policies that there are, with what is wrong.
func TestAdmission(t *testing.T) {
	c := client(t)
	open(t, c)
	const spec = "{optIn: {faultd.io/chaos: allowed}}"
	for name, test := range map[string]struct {
		policy    string // beside the one that allows anything
		namespace string // "": shop
		change    []string
		want      string // "": allowed
	}{
		"nothing against it":           {"{}", "", nil, ""},
		"the lever":                    {"{safetyLever: {engaged: true, reason: incident 42}}", "", nil, "engaged: incident 42"},
		"a lever that is released":     {"{safetyLever: {engaged: false, reason: incident 42}}", "", nil, ""},
		"a namespace without label":    {"{}", "quiet", nil, "faultd.io/chaos=allowed"},
		"a namespace of Kubernetes":    {"{}", "kube-system", nil, "Kubernetes itself"},
		"a protected namespace":        {"{protectedNamespaces: [shop]}", "", nil, "protects the namespace shop"},
		"another is protected":         {"{protectedNamespaces: [bank]}", "", nil, ""},
		"a kind":                       {"{allowedKinds: [dns, packet]}", "", nil, "allows dns, packet"},
		"an allowed kind":              {"{allowedKinds: [connect]}", "", nil, ""},
		"a node":                       {"{allowNodes: true}", "", []string{"connect: {errno: EPERM}", "node: {action: reboot}"}, "allowNodes"},
		"a cgroup":                     {"{}", "", []string{`pods: "?app=web"`, "cgroup: /a"}, "targets are pods"},
		"a selector of a cgroup":       {"{}", "", []string{`pods: "?app=web"`, "selectors: ['cgroup:/a']"}, "targets are pods"},
		"selectors of pods":            {"{}", "", []string{`pods: "?app=web"`, "selectors: ['pod:web-0', 'pods:?app=db', 'pods:shop?app=x']"}, ""},
		"pods of another namespace":    {"{}", "", []string{`"?app=web"`, `"bank?app=web"`}, "own namespace, shop"},
		"pods of one that begins so":   {"{}", "", []string{`"?app=web"`, `"shopping?app=web"`}, "own namespace, shop"},
		"a pod of another namespace":   {"{}", "", []string{`pods: "?app=web"`, "pod: bank/web-0"}, "own namespace, shop"},
		"a selector of another":        {"{}", "", []string{`pods: "?app=web"`, "selectors: ['pod:bank/web-0']"}, "own namespace, shop"},
		"a pod of this one":            {"{}", "", []string{`pods: "?app=web", mode: percent, value: 10`, "pod: shop/web-0"}, ""},
		"a named target of another":    {"{}", "", []string{"  target: {", "  targets: [{name: a, pods: '?a=b'}, {name: b, pods: 'bank?a=b'}]\n  target: {"}, "own namespace, shop"},
		"two lists of selectors":       {"{}", "", []string{"  target: {", "  targets: [{name: a, selectors: ['pod:a']}, {name: b, selectors: ['pod:bank/b']}]\n  target: {"}, "own namespace, shop"},
		"a larger share":               {"{limits: {percent: 5}}", "", nil, "allows 5"},
		"a share":                      {"{limits: {percent: 10}}", "", nil, ""},
		"more pods":                    {"{limits: {pods: 2}}", "", []string{"mode: percent, value: 10", "mode: fixed, value: 3"}, "allows 2 pods"},
		"so many pods":                 {"{limits: {pods: 3}}", "", []string{"mode: percent, value: 10", "mode: fixed, value: 3"}, ""},
		"longer":                       {"{limits: {duration: 30s}}", "", nil, "allows 30s"},
		"longer, of a fault":           {"{limits: {duration: 30s}}", "", []string{"duration: 1m", "duration: 10s", "{name: gone,", "{name: gone, duration: 1h30m,"}, "allows 30s"},
		"so long":                      {"{limits: {duration: 1m}}", "", nil, ""},
		"a duration that is not one":   {"{limits: {duration: 1m}}", "", []string{"duration: 1m", "duration: soon"}, "denied"},
		"limits of 0 are no limits":    {"{limits: {pods: 0, percent: 0, duration: ''}}", "", nil, ""},
		"another label of a namespace": {"{optIn: {team: checkout}}", "", nil, "team=checkout"},
	} {
		t.Run(name, func(t *testing.T) {
			policy := change(t, anything, "name: anything", "name: tried", spec, test.policy)
			create(t, c, "", policy)
			namespace := test.namespace
			if namespace == "" {
				namespace = "shop"
			}
			eventually(t, func() error { return try(c, namespace, change(t, good, test.change...)) }, test.want)
		})
	}
}

// TestWithoutPolicy: nothing is admitted where nobody said what may be hurt.
func TestWithoutPolicy(t *testing.T) {
	c := client(t)
	eventually(t, func() error { return try(c, "shop", object(t, good)) }, "no params found")
}

// TestDeletion: nothing keeps an experiment from being deleted, and so from being ended, whatever the rules are by then; nor from being
// labelled, its status from being written, or a node from making its record.
func TestDeletion(t *testing.T) {
	c := client(t)
	open(t, c)
	create(t, c, "shop", object(t, good))
	create(t, c, "", change(t, anything, "name: anything", "name: stop", "{optIn: {faultd.io/chaos: allowed}}", "{safetyLever: {engaged: true, reason: incident 42}}"))
	eventually(t, func() error { return try(c, "shop", object(t, good)) }, "incident 42")

	of := c.Resource(experiments).Namespace("shop")
	if _, err := of.Patch(context.Background(), "shop", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("a label: %v", err)
	}
	if _, err := of.Patch(context.Background(), "shop", types.MergePatchType, []byte(`{"spec":{"duration":"2m"}}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a new spec: %v", err)
	}
	if _, err := status(t, "shop", "", "{phase: running, abortedOn: a}"); err != nil {
		t.Errorf("its status: %v", err)
	}
	create(t, c, "shop", object(t, nodeRecord))
	if err := of.Delete(context.Background(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := of.Get(context.Background(), "shop", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}
