package cgroup

import (
	"fmt"
	"slices"
	"strings"
)

// requirement is one condition on the labels of a pod, as Kubernetes writes them.
type requirement struct {
	key string
	// operator is "=", "!=", "in", "notin", "exists" or "absent".
	operator string
	values   []string
}

// parseRequirements reads "app=web,tier!=db,zone in (a,b),zone notin (c),canary,!legacy".
func parseRequirements(text string) ([]requirement, error) {
	var requirements []requirement
	for _, part := range splitRequirements(text) {
		r, err := parseRequirement(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		requirements = append(requirements, r)
	}
	return requirements, nil
}

// splitRequirements splits at the commas outside of parentheses.
func splitRequirements(text string) []string {
	depth := 0
	return strings.Split(strings.Map(func(r rune) rune {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				return '\n'
			}
		}
		return r
	}, text), "\n")
}

func parseRequirement(text string) (requirement, error) {
	r := requirement{operator: "exists", key: text}
	if key, absent := strings.CutPrefix(text, "!"); absent {
		r = requirement{operator: "absent", key: strings.TrimSpace(key)}
	} else if key, values, ok := cutSet(text, " notin "); ok {
		r = requirement{key, "notin", values}
	} else if key, values, ok := cutSet(text, " in "); ok {
		r = requirement{key, "in", values}
	} else if key, value, ok := strings.Cut(text, "!="); ok {
		r = requirement{strings.TrimSpace(key), "!=", []string{strings.TrimSpace(value)}}
	} else if key, value, ok := strings.Cut(text, "="); ok {
		r = requirement{strings.TrimSpace(key), "=", []string{strings.TrimSpace(strings.TrimPrefix(value, "="))}}
	}
	isBad := func(value string) bool { return len(value) > 63 || strings.Trim(value, nameLetters) != "" }
	if r.key == "" || len(r.key) > 317 || strings.Trim(r.key, nameLetters+"/") != "" || slices.ContainsFunc(r.values, isBad) {
		return r, fmt.Errorf("%.80q is no condition on a label; write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY", text)
	}
	return r, nil
}

// cutSet reads "KEY in (A,B)".
func cutSet(text, operator string) (key string, values []string, ok bool) {
	key, list, found := strings.Cut(text, operator)
	list, opened := strings.CutPrefix(strings.TrimSpace(list), "(")
	list, closed := strings.CutSuffix(list, ")")
	if !found || !opened || !closed {
		return "", nil, false
	}
	for value := range strings.SplitSeq(list, ",") {
		values = append(values, strings.TrimSpace(value))
	}
	return strings.TrimSpace(key), values, true
}

// String gives a condition in its one written form.
func (r requirement) String() string {
	switch r.operator {
	case "exists":
		return r.key
	case "absent":
		return "!" + r.key
	case "in", "notin":
		return r.key + " " + r.operator + " (" + strings.Join(r.values, ",") + ")"
	}
	return r.key + r.operator + r.values[0]
}

// holds says whether labels fulfil the condition. A label that is not there differs from every value, as in Kubernetes.
func (r requirement) holds(labels map[string]string) bool {
	value, there := labels[r.key]
	switch r.operator {
	case "exists":
		return there
	case "absent":
		return !there
	case "=", "in":
		return there && slices.Contains(r.values, value)
	}
	return !there || !slices.Contains(r.values, value)
}
