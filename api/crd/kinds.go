package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// kind is one kind of object in Kubernetes.
type kind struct {
	name, plural string
	description  string
	shortNames   []string
	cluster      bool   // it is in no namespace
	spec, status string // names of messages, or ""; who has no spec is a status alone, which is written with the object
	columns      []column
	rules        []rule // of the whole object
	// finish adds to the schema what messages say that it does not contain.
	finish func(root *schema, messages map[string]*protogen.Message)
}

// allowedKinds lets a policy name nothing but kinds of faults.
func allowedKinds(root *schema, messages map[string]*protogen.Message) {
	items := root.Properties["spec"].Properties["allowedKinds"].Items
	for _, oneof := range messages["ExperimentFault"].Oneofs {
		if oneof.Desc.Name() == "kind" {
			for _, name := range alternatives(oneof) {
				items.Enum = append(items.Enum, name)
			}
		}
	}
}

// named keeps names to what they may be in a file.
var named = rule{
	Rule:    "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",
	Message: "metadata.name has at most 63 lower-case letters, digits and \"-\"",
}

var kinds = []kind{
	{
		name: "Experiment",
		description: "Experiment is what is believed of a system, who is hurt and how, what is watched, and when it stops. Every node that has pods of " +
			"its choice carries it out for these, and writes what became of it.",
		shortNames: []string{"fx"},
		spec:       "ExperimentSpec",
		status:     "ExperimentStatus",
		columns: []column{
			{Name: "Phase", Type: "string", JSONPath: ".status.phase"},
			{Name: "Verdict", Type: "string", JSONPath: ".status.verdict"},
			{Name: "Pods", Type: "integer", JSONPath: ".status.pods", Description: "How many were chosen."},
			{Name: "Injected", Type: "integer", JSONPath: ".status.injected", Description: "How much harm was done."},
			{Name: "Message", Type: "string", JSONPath: ".status.message", Priority: 1},
			{Name: "Hypothesis", Type: "string", JSONPath: ".spec.hypothesis", Priority: 1},
		},
		rules: []rule{named, {
			Rule:      "!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['running', 'ended']) || self.spec == oldSelf.spec",
			Message:   "it runs, or has run, and stays as it is: delete it, which ends it, and create another",
			FieldPath: ".spec",
		}},
	},
	{
		name:        "NodeRecord",
		description: "NodeRecord is what one node does, or did, for an Experiment, which owns it: deleting that deletes it. Only that node writes it.",
		shortNames:  []string{"fxr"},
		status:      "NodeRecord",
		columns: []column{
			{Name: "Experiment", Type: "string", JSONPath: ".status.experiment"},
			{Name: "Node", Type: "string", JSONPath: ".status.name"},
			{Name: "Phase", Type: "string", JSONPath: ".status.phase"},
			{Name: "Verdict", Type: "string", JSONPath: ".status.verdict"},
			{Name: "Injected", Type: "integer", JSONPath: ".status.counters.injected", Description: "How much harm was done."},
			{Name: "Message", Type: "string", JSONPath: ".status.message", Priority: 1},
		},
	},
	{
		name:        "Schedule",
		description: "Schedule is an experiment that is carried out again and again: whenever it is due, an Experiment object is made of it, one at a time.",
		shortNames:  []string{"fxs"},
		spec:        "ScheduleSpec",
		status:      "ScheduleStatus",
		columns: []column{
			{Name: "Phase", Type: "string", JSONPath: ".status.phase"},
			{Name: "Last", Type: "date", JSONPath: ".status.lastTime", Description: "When it was due last."},
			{Name: "Next", Type: "string", JSONPath: ".status.nextTime", Description: "When it is due next."},
			{Name: "Experiment", Type: "string", JSONPath: ".status.lastExperiment"},
			{Name: "Message", Type: "string", JSONPath: ".status.message", Priority: 1},
		},
		// The time is added to it: NAME-20261126-103000.
		rules: []rule{named, {Rule: "self.metadata.name.size() <= 47", Message: "metadata.name has at most 47 characters, as the names of its Experiments are 16 longer"}},
	},
	{
		name:   "ChaosPolicy",
		plural: "chaospolicies",
		description: "ChaosPolicy says what experiments may do in the cluster, and holds the lever that ends all of them. All objects of this kind hold at " +
			"once: whatever one forbids is forbidden.",
		cluster: true,
		spec:    "ChaosPolicySpec",
		columns: []column{
			{Name: "Lever", Type: "boolean", JSONPath: ".spec.safetyLever.engaged", Description: "Every fault is ended, and none begins."},
			{Name: "Reason", Type: "string", JSONPath: ".spec.safetyLever.reason"},
			{Name: "Kinds", Type: "string", JSONPath: ".spec.allowedKinds", Priority: 1},
		},
		finish: allowedKinds,
	},
}

// listKeys are the lists of which each item has a name of its own, by message and field.
var listKeys = map[protoreflect.Name]string{
	"ExperimentSpec.faults":       "name",
	"ExperimentSpec.probes":       "name",
	"ErrorBudget.objectives":      "name",
	"ExperimentStatus.conditions": "type",
	"ExperimentStatus.problems":   "node",
	"NodeRecord.targets":          "pod",
}

// crossing has, by message, what concerns several fields, which the schema says in comments and the experiment checks in code.
var crossing = map[protoreflect.Name][]rule{
	"ExperimentSpec": {
		{
			Rule:      "has(self.target) || self.faults.all(f, has(f.target) && f.target != '')",
			Message:   "a target is needed: of the experiment, or of each fault, by its name in targets",
			FieldPath: ".target",
		},
		{
			Rule:      "!has(self.targets) || self.targets.all(t, has(t.name) && t.name != '' && self.targets.exists_one(u, has(u.name) && u.name == t.name))",
			Message:   "each of targets needs a name of its own",
			FieldPath: ".targets",
		},
		{
			Rule:      "self.faults.all(f, !has(f.target) || f.target == '' || has(self.targets) && self.targets.exists(t, has(t.name) && t.name == f.target))",
			Message:   "a fault names a target that is not in targets",
			FieldPath: ".faults",
		},
		{
			Rule:      "self.faults.all(f, !has(f.after) || f.after == '' || f.after != f.name && self.faults.exists(g, g.name == f.after))",
			Message:   "a fault starts after one that there is not, or after itself",
			FieldPath: ".faults",
		},
		{
			Rule:      "!has(self.schedule) || !has(self.duration) || self.duration == ''",
			Message:   "with a schedule, which says how long faults last, there is no duration",
			FieldPath: ".duration",
		},
		{
			Rule:      "!has(self.repeat)",
			Message:   "an Experiment runs once: for what runs again and again make a Schedule",
			FieldPath: ".repeat",
		},
		{
			Rule:      "self.probes.all(p, !has(p.command) && !has(p.log))",
			Message:   "commands and log files are those of a node: they are for faultd run",
			FieldPath: ".probes",
		},
		{
			Rule:      "!has(self.stop) || !has(self.stop.file) || self.stop.file == ''",
			Message:   "a file is that of a node: to end an experiment, delete it",
			FieldPath: ".stop.file",
		},
		{
			Rule:      "self.probes.all(p, !has(p.counter) || self.faults.exists(f, f.name == p.counter.fault))",
			Message:   "a probe counts a fault that there is not",
			FieldPath: ".probes",
		},
	},
	"ExperimentTarget": {
		oneOf([]string{"cgroup", "unit", "pid", "container", "pod", "pods", "selectors"}, true),
		{
			Rule:      "has(self.mode) && self.mode in ['fixed', 'percent', 'random-max-percent'] ? has(self.value) && self.value > 0.0 : !has(self.value) || self.value == 0.0",
			Message:   "value is for the modes fixed, percent and random-max-percent, which need one",
			FieldPath: ".value",
		},
	},
	"Repeat":   {oneOf([]string{"at", "cron", "meanDays"}, true)},
	"Schedule": {oneOf([]string{"bursts", "ramp", "steps", "continuous"}, true)},
	"SafetyLever": {{
		Rule:      "!has(self.engaged) || !self.engaged || has(self.reason) && self.reason != ''",
		Message:   "a lever that is engaged needs a reason, for those who find their experiments ended",
		FieldPath: ".reason",
	}},
	"Range": {{Rule: "has(self.min) || has(self.max)", Message: "min or max is needed"}},
}
