package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxPID is one more than the greatest process id on 64-bit machines (PID_MAX_LIMIT).
const maxPID = 1 << 22

const selectorHelp = "write cgroup:PATH, pid:N, unit:NAME, container:NAME, pod:NAMESPACE/NAME or pods:NAMESPACE?LABELS"

// Selector says which cgroup is meant; ParseSelector makes one. The zero Selector means none. Selectors compare with ==.
type Selector struct{ scheme, value string }

// ParseSelector reads a selector:
//
//	cgroup:/system.slice/redis.service  a path from the root of the tree, or below its mount point
//	pid:4711                            the cgroup that this process is in when it is resolved
//	unit:redis                          a systemd unit; without a known ending it is a .service
//	container:web                       a container, by its name, its ID or the beginning of that (at least four letters)
//	container:~^web-[0-9]+$             those whose names a regular expression (RE2) is found in
//	pod:shop/web-0                      a pod with all its containers; pod:shop/web-0#app,proxy: these of its containers
//	pods:shop?app=web,tier!=db          the pods of a namespace whose labels fit, also with "#"
//
// It looks at the text only. The error names the text and what is allowed.
func ParseSelector(s string) (Selector, error) {
	scheme, value, found := strings.Cut(s, ":")
	if !found {
		return Selector{}, fmt.Errorf("selector %.80q: %s", s, selectorHelp)
	}
	var err error
	switch scheme {
	case "cgroup":
		value, err = cleanPath(value)
	case "pid":
		value, err = cleanPID(value)
	case "unit":
		value, err = cleanUnit(value)
	case "container":
		_, err = parseContainer(value)
	case "pod":
		value, err = cleanPods(parsePod(value))
	case "pods":
		value, err = cleanPods(parsePods(value))
	default:
		err = fmt.Errorf("%.20q is unknown; %s", scheme, selectorHelp)
	}
	if err != nil {
		return Selector{}, fmt.Errorf("selector %.80q: %w", s, err)
	}
	return Selector{scheme, value}, nil
}

func cleanPods(s PodSelector, err error) (string, error) {
	_, value, _ := strings.Cut(s.String(), ":")
	return value, err
}

func cleanPID(s string) (string, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 1 || n >= maxPID {
		return "", ErrNoPID
	}
	return strconv.FormatUint(n, 10), nil
}

// String gives the selector in its one written form, which ParseSelector reads again; "" for the zero Selector.
func (s Selector) String() string {
	if s == (Selector{}) {
		return ""
	}
	return s.scheme + ":" + s.value
}

// Namespace is that of Kubernetes in which a selector looks for pods; "": it names none.
func (s Selector) Namespace() string {
	var pods PodSelector
	switch s.scheme {
	case "pod":
		pods, _ = parsePod(s.value)
	case "pods":
		pods, _ = parsePods(s.value)
	}
	return pods.Namespace
}

// InContainers says whether container runtimes must be asked.
func (s Selector) InContainers() bool {
	return s.scheme == "container" || s.scheme == "pod" || s.scheme == "pods"
}

// Resolve finds the cgroup that a selector means now. The error wraps ErrNotFound if there is none, ErrAmbiguous if there are
// several, ErrTooDeep if it lies below MaxLevel. Whether it may be hurt, Check says.
func (h *Hierarchy) Resolve(ctx context.Context, s Selector) (Target, error) {
	t, err := h.resolve(ctx, s)
	if err != nil {
		return Target{}, fmt.Errorf("resolve %q: %w", s, err)
	}
	if err := t.checkLevel(); err != nil {
		return Target{}, fmt.Errorf("resolve %q: %w", s, err)
	}
	return t, nil
}

func (h *Hierarchy) resolve(ctx context.Context, s Selector) (Target, error) {
	if s.InContainers() {
		return oneOf(h.inContainers(ctx, s))
	}
	switch s.scheme {
	case "cgroup":
		return h.Lookup(h.belowMount(s.value))
	case "pid":
		pid, err := strconv.Atoi(s.value)
		if err != nil {
			return Target{}, err
		}
		return h.OfProcess(pid)
	case "unit":
		p, err := h.findUnit(s.value)
		if err != nil {
			return Target{}, err
		}
		return h.Lookup(p)
	}
	return Target{}, errors.New("empty selector; " + selectorHelp)
}

// belowMount turns a path below the mount point into one from the root of the tree.
func (h *Hierarchy) belowMount(p string) string {
	if !contains(h.mount, p) {
		return p
	}
	return "/" + strings.TrimPrefix(p[len(h.mount):], "/")
}
