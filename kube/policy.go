package kube

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/calendar"
)

// neverHurt are namespaces that the cluster itself lives of.
var neverHurt = []string{"kube-system", "kube-public", "kube-node-lease"}

// policy is a ChaosPolicy object that was read.
type policy struct {
	name      string
	spec      *v1.ChaosPolicySpec
	protected []labels.Selector
	hours     calendar.Window
	longest   time.Duration
}

// newPolicy checks what goes beyond the rules of the schema. A policy that makes no sense forbids everything: nobody knows what it wanted.
func newPolicy(name string, spec *v1.ChaosPolicySpec) (policy, error) {
	p := policy{name: name, spec: spec}
	wrong := func(field string, err error) (policy, error) {
		return p, fmt.Errorf("ChaosPolicy %s: spec.%s: %w; nothing starts until it is corrected", name, field, err)
	}
	for i, text := range spec.GetProtectedLabels() {
		s, err := labels.Parse(text)
		if err != nil {
			return wrong(fmt.Sprintf("protectedLabels[%d]", i), err)
		}
		p.protected = append(p.protected, s)
	}
	h := spec.GetHours()
	var err error
	if p.hours, err = (calendar.Hours{Days: h.GetDays(), From: h.GetFrom(), To: h.GetTo(), TimeZone: h.GetTimeZone()}).Window(); err != nil {
		return wrong("hours", err)
	}
	if text := spec.GetLimits().GetDuration(); text != "" {
		if p.longest, err = time.ParseDuration(text); err != nil || p.longest <= 0 {
			return wrong("limits.duration", fmt.Errorf("%q is no duration; write it as 10m", text))
		}
	}
	return p, nil
}

// policies are all of the cluster's.
type policies []policy

// protects says whether a pod may never be hurt.
func (all policies) protects(p pod) bool {
	return slices.ContainsFunc(all, func(one policy) bool {
		return slices.ContainsFunc(one.protected, func(s labels.Selector) bool { return s.Matches(labels.Set(p.labels)) })
	})
}

// lever says why everything is stopped; empty: it is not.
func (all policies) lever() string {
	for _, one := range all {
		if l := one.spec.GetSafetyLever(); l.GetEngaged() {
			reason := l.GetReason()
			if reason == "" {
				reason = "no reason is given"
			}
			return fmt.Sprintf("%s of ChaosPolicy %s: %s", leverName, one.name, reason)
		}
	}
	return ""
}

// question is what is known of an experiment before it starts.
type question struct {
	namespace       string
	namespaceLabels map[string]string
	kinds           []string
	length          time.Duration
	now             time.Time
	// pods is how many are chosen in all, and shares are those of the targets.
	pods   int
	shares []share
	// older is how many experiments of before are not over.
	older int
}

// with is the question with what was chosen.
func (q question) with(c *choice) question {
	q.pods, q.shares = len(c.all), c.shares
	return q
}

// refuses says why an experiment may not start; nil: it may, once waits says so too.
func (all policies) refuses(q question) error {
	if slices.Contains(neverHurt, q.namespace) {
		return fmt.Errorf("namespace %s is never hurt: the cluster lives of it", q.namespace)
	}
	if why := all.lever(); why != "" {
		return fmt.Errorf("%s", why)
	}
	if len(all) == 0 {
		return fmt.Errorf("there is no ChaosPolicy, so nobody has said what may be hurt; make one, an empty one allows all but the kind node")
	}
	for _, one := range all {
		if err := one.refuses(q); err != nil {
			return fmt.Errorf("ChaosPolicy %s: %w", one.name, err)
		}
	}
	return nil
}

func (p policy) refuses(q question) error {
	spec, limits := p.spec, p.spec.GetLimits()
	if slices.Contains(spec.GetProtectedNamespaces(), q.namespace) {
		return fmt.Errorf("namespace %s is one of protectedNamespaces", q.namespace)
	}
	for label, value := range spec.GetOptIn() {
		if got, ok := q.namespaceLabels[label]; !ok || got != value {
			return fmt.Errorf("namespace %s has not opted in; it needs the label %s=%s", q.namespace, label, value)
		}
	}
	for _, kind := range q.kinds {
		if kind == "node" && !spec.GetAllowNodes() {
			return fmt.Errorf("faults of the kind node are not allowed; allowNodes would")
		}
		if allowed := spec.GetAllowedKinds(); len(allowed) > 0 && !slices.Contains(allowed, kind) {
			return fmt.Errorf("faults of the kind %s are not allowed; allowedKinds has %s", kind, strings.Join(allowed, ", "))
		}
	}
	if most := int(limits.GetPods()); most > 0 && q.pods > most {
		return fmt.Errorf("%d pods would be hurt, and limits.pods is %d", q.pods, most)
	}
	for _, s := range q.shares {
		if most := max(1, int(float64(s.matching)*limits.GetPercent()/100)); limits.GetPercent() > 0 && s.chosen > most {
			return fmt.Errorf("%d of %d pods would be hurt, and with limits.percent %v it may be %d", s.chosen, s.matching, limits.GetPercent(), most)
		}
	}
	if p.longest > 0 && q.length > p.longest {
		return fmt.Errorf("it takes %s in all, and limits.duration is %s", q.length, p.longest)
	}
	if err := p.hours.Holds(q.now, q.now.Add(q.length)); err != nil {
		return fmt.Errorf("hours: %w", err)
	}
	return nil
}

// waits says for what an experiment must wait; empty: for nothing.
func (all policies) waits(q question) string {
	for _, one := range all {
		if most := int(one.spec.GetLimits().GetExperiments()); most > 0 && q.older >= most {
			return fmt.Sprintf("ChaosPolicy %s: limits.experiments is %d, and %d older ones are not over", one.name, most, q.older)
		}
	}
	return ""
}
