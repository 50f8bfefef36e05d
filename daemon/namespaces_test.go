package daemon

import (
	"errors"
	"strings"
	"testing"

	"faultd/cgroup"
)

func TestNamespaces(t *testing.T) {
	const pod = "/kubepods.slice/kubepods-pod1.slice"
	for name, test := range map[string]struct{ config, selector, path, told, says string }{
		"none given":         {"{}", "pod:kube-system/dns", pod, "", ""},
		"allowed":            {"allow: {namespaces: [shop, 'team-*']}", "pod:team-a/web", pod, "", ""},
		"not allowed":        {"allow: {namespaces: [shop, 'team-*']}", "pods:bank?app=web", pod, "", "target: namespace bank; allow.namespaces has shop, team-*"},
		"protected":          {"protected: {namespaces: ['kube-*']}", "pod:kube-system/dns#dns", pod, "", "target: namespace kube-system is one of protected.namespaces (kube-*)"},
		"protected, allowed": {"{allow: {namespaces: ['*']}, protected: {namespaces: [a]}}", "pod:a/b", pod, "", "is one of protected.namespaces"},
		"others":             {"protected: {namespaces: ['kube-*']}", "pod:shop/web", pod, "", ""},
		"a pod by its path":  {"protected: {namespaces: [a]}", "cgroup:" + pod, pod, "", pod + " holds pods, and allow.namespaces or protected.namespaces are given; name the pod"},
		"a container":        {"allow: {namespaces: [a]}", "container:web", pod, "", "name the pod"},
		"all pods":           {"allow: {namespaces: [a]}", "cgroup:/", "/", "", "name the pod"},
		"kind":               {"allow: {namespaces: [a]}", "pid:1", "/kubelet.slice", "", "name the pod"},
		"told":               {"allow: {namespaces: [a]}", "container:~web", "/machine/web", "a", ""},
		"told, in a kubelet": {"allow: {namespaces: [a]}", "container:~web", pod, "a", ""},
		"told, not allowed":  {"allow: {namespaces: [a]}", "container:~web", "/machine/web", "bank", "target: namespace bank; allow.namespaces has a"},
		"told, protected":    {"protected: {namespaces: [bank]}", "container:~web", "/machine/web", "bank", "namespace bank is one of protected.namespaces (bank)"},
		"told otherwise":     {"allow: {namespaces: [a]}", "pod:a/web", pod, "bank", "target: namespace bank"},
		"no pod":             {"allow: {namespaces: [a]}", "unit:shop", "/system.slice/shop.service", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			if err := config.parse([]byte(test.config)); err != nil {
				t.Fatal(err)
			}
			selector, err := cgroup.ParseSelector(test.selector)
			if err != nil {
				t.Fatal(err)
			}
			err = config.namespace(selector, cgroup.Target{Path: test.path, Namespace: test.told})
			if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, errNotAllowed) || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
}

func TestWithinShare(t *testing.T) {
	if err := withinShare(30, 100, 30); err != nil {
		t.Error(err)
	}
	if err := withinShare(0, 0, 1); err != nil {
		t.Error(err)
	}
	if err := withinShare(31, 100, 30); err == nil || !strings.Contains(err.Error(), "31 of the node's 100 processes would be in targets, 31 %, and limits.maxPercent is 30") {
		t.Error(err)
	}
}
