package daemon

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"faultd/cgroup"
)

// namespace refuses targets in namespaces of Kubernetes that may not be hurt: the container runtime tells the namespace, whatever the selector
// names. Of a pod that is named by its cgroup nobody knows it, so it is refused too.
func (c Config) namespace(selector cgroup.Selector, target cgroup.Target) error {
	allowed, spared := c.Allow.Namespaces, c.Protected.Namespaces
	namespace := cmp.Or(target.Namespace, selector.Namespace())
	switch {
	case len(allowed)+len(spared) == 0:
		return nil
	case namespace == "" && holdsPods(target.Path):
		return notAllowed("target: %s holds pods, and allow.namespaces or protected.namespaces are given; name the pod, as pod:NAMESPACE/NAME", target.Path)
	case namespace == "":
		return nil
	case fitsOne(spared, namespace):
		return notAllowed("target: namespace %s is one of protected.namespaces (%s)", namespace, strings.Join(spared, ", "))
	case len(allowed) > 0 && !fitsOne(allowed, namespace):
		return notAllowed("target: namespace %s; allow.namespaces has %s", namespace, strings.Join(allowed, ", "))
	}
	return nil
}

// holdsPods says whether a cgroup is in the kubelet's tree, or above it.
func holdsPods(target string) bool {
	return target == "/" || strings.Contains(target, "kubepods") || strings.HasPrefix(target, "/kubelet")
}

func fitsOne(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { fits, _ := path.Match(pattern, name); return fits })
}

// checkNamespaces names one that could be no namespace's name.
func checkNamespaces(field string, patterns []string) error {
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.ContainsAny(pattern, "/ ") {
			return fmt.Errorf("%s: %q is no name of a namespace; write it as shop or shop-*", field, pattern)
		}
	}
	return nil
}
