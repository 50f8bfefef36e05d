package cgroup

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// nameLetters is what names of pods, namespaces and containers, and labels, are made of.
const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// leastPrefix is how much of a container's ID must be given.
const leastPrefix = 4

// ContainerSelector says which containers are meant by "container:".
type ContainerSelector struct {
	// Text is a name, an ID, or the beginning of an ID; "" with a Pattern.
	Text string
	// Pattern is found in the names that are meant.
	Pattern *regexp.Regexp
}

// parseContainer reads "web", "0d6f5a…" and "~^web-[0-9]+$".
func parseContainer(value string) (ContainerSelector, error) {
	if text, ok := strings.CutPrefix(value, "~"); ok {
		pattern, err := regexp.Compile(text)
		if text == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			return ContainerSelector{}, fmt.Errorf("%.80q is no regular expression (RE2) for names: %w", text, err)
		}
		return ContainerSelector{Pattern: pattern}, nil
	}
	return ContainerSelector{Text: value}, checkName("container", value)
}

// Pick chooses among containers of which only id and name are known: all that bear the ID or the name; if there are none, all whose
// IDs begin so. The result has their indexes.
func (s ContainerSelector) Pick(n int, idAndName func(i int) (id, name string)) []int {
	var exact, begin []int
	for i := range n {
		id, name := idAndName(i)
		switch {
		case s.Pattern != nil:
			if s.Pattern.MatchString(name) {
				exact = append(exact, i)
			}
		case id == s.Text, name == s.Text:
			exact = append(exact, i)
		case len(s.Text) >= leastPrefix && strings.HasPrefix(id, s.Text):
			begin = append(begin, i)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return begin
}

// PodSelector says which pods are meant by "pod:" and "pods:".
type PodSelector struct {
	Namespace string
	// Name is "" for all pods whose labels fit.
	Name   string
	labels []requirement
	// Containers are names of those that are meant in the pods; none: the whole pods.
	Containers []string
	// Part: of a pod with a Name some of the Containers do.
	Part bool
}

// parsePod reads "shop/web-0" and "shop/web-0#app,proxy".
func parsePod(value string) (PodSelector, error) {
	pod, containers, err := cutContainers(value)
	if err != nil {
		return PodSelector{}, err
	}
	namespace, name, ok := strings.Cut(pod, "/")
	if !ok {
		return PodSelector{}, errors.New("write pod:NAMESPACE/NAME, or pod:NAMESPACE/NAME#CONTAINER,CONTAINER")
	}
	s := PodSelector{Namespace: namespace, Name: name, Containers: containers}
	return s, errors.Join(checkName("namespace", namespace), checkName("pod", name))
}

// parsePods reads "shop", "shop?app=web,tier!=db" and "shop?app=web#app".
func parsePods(value string) (PodSelector, error) {
	pods, containers, err := cutContainers(value)
	if err != nil {
		return PodSelector{}, err
	}
	namespace, conditions, some := strings.Cut(pods, "?")
	s := PodSelector{Namespace: namespace, Containers: containers}
	if err := checkName("namespace", namespace); err != nil {
		return s, fmt.Errorf("%w; write pods:NAMESPACE or pods:NAMESPACE?LABEL=VALUE,LABEL!=VALUE", err)
	}
	if some {
		s.labels, err = parseRequirements(conditions)
	}
	return s, err
}

// cutContainers splits what follows a "#" from a selector of pods.
func cutContainers(value string) (pods string, containers []string, err error) {
	pods, list, some := strings.Cut(value, "#")
	if !some {
		return pods, nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		if err := checkName("container", name); err != nil {
			return "", nil, err
		}
		containers = append(containers, name)
	}
	slices.Sort(containers)
	return pods, slices.Compact(containers), nil
}

func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("empty name of a %s", what)
	}
	if len(name) > 253 || strings.Trim(name, nameLetters) != "" {
		return fmt.Errorf("%.80q is no name of a %s; it is made of letters, digits, -, _ and ., at most 253", name, what)
	}
	return nil
}

// Fits says whether a pod is meant.
func (s PodSelector) Fits(namespace, name string, labels map[string]string) bool {
	if namespace != s.Namespace || s.Name != "" && name != s.Name {
		return false
	}
	return !slices.ContainsFunc(s.labels, func(r requirement) bool { return !r.holds(labels) })
}

// String gives the selector in its one written form.
func (s PodSelector) String() string {
	var b strings.Builder
	if s.Name != "" {
		b.WriteString("pod:" + s.Namespace + "/" + s.Name)
	} else {
		b.WriteString("pods:" + s.Namespace)
	}
	for i, r := range s.labels {
		b.WriteString([]string{"?", ","}[min(i, 1)] + r.String())
	}
	if len(s.Containers) > 0 {
		b.WriteString("#" + strings.Join(s.Containers, ","))
	}
	return b.String()
}

// ParsePods reads "pod:…" and "pods:…".
func ParsePods(text string) (PodSelector, error) {
	scheme, value, _ := strings.Cut(text, ":")
	switch scheme {
	case "pod":
		return parsePod(value)
	case "pods":
		return parsePods(value)
	}
	return PodSelector{}, fmt.Errorf("%.80q means no pods; write pod:NAMESPACE/NAME or pods:NAMESPACE?LABELS", text)
}

// Labels are the conditions on labels, as Kubernetes writes them.
func (s PodSelector) Labels() string {
	var all []string
	for _, r := range s.labels {
		all = append(all, r.String())
	}
	return strings.Join(all, ",")
}
