package kube

import (
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// mustPolicies reads policies that make sense.
func mustPolicies(t *testing.T, specs ...*v1.ChaosPolicySpec) (all policies) {
	t.Helper()
	for i, spec := range specs {
		p, err := newPolicy(string(rune('a'+i)), spec)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestPolicies(t *testing.T) {
	// A Tuesday.
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	good := question{
		namespace: "shop", namespaceLabels: map[string]string{"chaos": "yes"}, kinds: []string{"connect", "packet"}, length: 10 * time.Minute, now: noon,
		pods: 4, shares: []share{{3, 10}, {1, 2}},
	}
	change := func(how func(*question)) question {
		q := good
		how(&q)
		return q
	}
	limits := func(l *v1.PolicyLimits) *v1.ChaosPolicySpec { return &v1.ChaosPolicySpec{Limits: l} }
	open := &v1.ChaosPolicySpec{}
	for name, test := range map[string]struct {
		q    question
		all  []*v1.ChaosPolicySpec
		want string // empty: it may start
	}{
		"none":                       {good, nil, "there is no ChaosPolicy"},
		"none, system namespace":     {change(func(q *question) { q.namespace = "kube-system" }), nil, "kube-system is never hurt"},
		"empty":                      {good, []*v1.ChaosPolicySpec{open}, ""},
		"empty, node":                {change(func(q *question) { q.kinds = []string{"node"} }), []*v1.ChaosPolicySpec{open}, "kind node are not allowed"},
		"node allowed":               {change(func(q *question) { q.kinds = []string{"node"} }), []*v1.ChaosPolicySpec{{AllowNodes: true}}, ""},
		"node allowed by one of two": {change(func(q *question) { q.kinds = []string{"node"} }), []*v1.ChaosPolicySpec{{AllowNodes: true}, open}, "ChaosPolicy b: faults of the kind node"},
		"lever":                      {good, []*v1.ChaosPolicySpec{open, {SafetyLever: &v1.SafetyLever{Engaged: true, Reason: "incident"}}}, "safety lever of ChaosPolicy b: incident"},
		"lever without a reason":     {good, []*v1.ChaosPolicySpec{{SafetyLever: &v1.SafetyLever{Engaged: true}}}, "no reason is given"},
		"lever released":             {good, []*v1.ChaosPolicySpec{{SafetyLever: &v1.SafetyLever{Reason: "over"}}}, ""},
		"protected namespace":        {good, []*v1.ChaosPolicySpec{{ProtectedNamespaces: []string{"bank", "shop"}}}, "shop is one of protectedNamespaces"},
		"another protected":          {good, []*v1.ChaosPolicySpec{{ProtectedNamespaces: []string{"bank"}}}, ""},
		"opted in":                   {good, []*v1.ChaosPolicySpec{{OptIn: map[string]string{"chaos": "yes"}}}, ""},
		"opted in otherwise":         {good, []*v1.ChaosPolicySpec{{OptIn: map[string]string{"chaos": "maybe"}}}, "it needs the label chaos=maybe"},
		"not opted in":               {good, []*v1.ChaosPolicySpec{{OptIn: map[string]string{"faultd.io/chaos": ""}}}, "it needs the label faultd.io/chaos="},
		"kinds":                      {good, []*v1.ChaosPolicySpec{{AllowedKinds: []string{"packet", "connect"}}}, ""},
		"other kinds":                {good, []*v1.ChaosPolicySpec{{AllowedKinds: []string{"packet"}}}, "kind connect are not allowed; allowedKinds has packet"},
		"kinds of both":              {good, []*v1.ChaosPolicySpec{{AllowedKinds: []string{"packet", "connect"}}, {AllowedKinds: []string{"connect"}}}, "ChaosPolicy b: faults of the kind packet"},
		"pods":                       {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Pods: 4})}, ""},
		"too many pods":              {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Pods: 3})}, "4 pods would be hurt, and limits.pods is 3"},
		"percent":                    {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Percent: 30})}, ""},
		"too many percent":           {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Percent: 29})}, "3 of 10 pods would be hurt"},
		"duration":                   {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Duration: "10m"})}, ""},
		"too long":                   {good, []*v1.ChaosPolicySpec{limits(&v1.PolicyLimits{Duration: "9m"})}, "it takes 10m0s in all, and limits.duration is 9m0s"},
		"hours":                      {good, []*v1.ChaosPolicySpec{{Hours: &v1.PolicyHours{Days: []string{"mon-fri"}, From: "09:00", To: "17:00"}}}, ""},
		"other hours":                {good, []*v1.ChaosPolicySpec{{Hours: &v1.PolicyHours{Days: []string{"sat"}}}}, "hours: it is Tue 12:00"},
		"past the hours":             {good, []*v1.ChaosPolicySpec{{Hours: &v1.PolicyHours{To: "12:05"}}}, "it would go on until Tue 12:10"},
		"hours elsewhere":            {good, []*v1.ChaosPolicySpec{{Hours: &v1.PolicyHours{From: "09:00", To: "12:30", TimeZone: "Europe/Berlin"}}}, "it is Tue 13:00 CET"},
	} {
		t.Run(name, func(t *testing.T) {
			err := mustPolicies(t, test.all...).refuses(test.q)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPoliciesWait(t *testing.T) {
	two := mustPolicies(t, &v1.ChaosPolicySpec{}, &v1.ChaosPolicySpec{Limits: &v1.PolicyLimits{Experiments: 2}})
	if why := two.waits(question{older: 1}); why != "" {
		t.Errorf("one older, and it waits: %s", why)
	}
	if why := two.waits(question{older: 2}); !strings.Contains(why, "ChaosPolicy b: limits.experiments is 2") {
		t.Errorf("two older, and it waits for %q", why)
	}
}

func TestPoliciesProtect(t *testing.T) {
	all := mustPolicies(t, &v1.ChaosPolicySpec{}, &v1.ChaosPolicySpec{ProtectedLabels: []string{"tier=db", "app in (etcd,vault)"}})
	for _, test := range []struct {
		labels map[string]string
		want   bool
	}{{map[string]string{"tier": "db"}, true}, {map[string]string{"app": "vault", "tier": "web"}, true}, {map[string]string{"app": "web"}, false}, {nil, false}} {
		if got := all.protects(pod{labels: test.labels}); got != test.want {
			t.Errorf("%v: protected is %v", test.labels, got)
		}
	}
}

func TestPoliciesThatMakeNoSense(t *testing.T) {
	for want, spec := range map[string]*v1.ChaosPolicySpec{
		"spec.protectedLabels[1]": {ProtectedLabels: []string{"a=b", "a in b"}},
		"spec.hours: days":        {Hours: &v1.PolicyHours{Days: []string{"someday"}}},
		"spec.limits.duration":    {Limits: &v1.PolicyLimits{Duration: "long"}},
	} {
		if _, err := newPolicy("odd", spec); err == nil || !strings.Contains(err.Error(), "ChaosPolicy odd: "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
