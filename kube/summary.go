package kube

import (
	"fmt"
	"slices"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// lateReport is how long after its end a node may take to say what came of it, before it counts as lost.
const lateReport = time.Minute

// severity is the order of verdicts, the worst first.
var severity = []experiment.Verdict{
	experiment.Failed, experiment.Aborted, experiment.Interrupted, experiment.Refuted, experiment.Confirmed, experiment.Monitored, experiment.Inert,
}

// The conditions of an Experiment object.
const (
	selected  = "Selected"
	injected  = "Injected"
	recovered = "Recovered"
	paused    = "Paused"
	expired   = "Expired"
	aborted   = "Aborted"
)

// lost says whether a node has not said for too long what came of its run.
func lost(n *v1.NodeRecord, now time.Time) bool {
	return n.GetPhase() == "running" && now.After(readClock(n.GetUntil()).Add(lateReport))
}

// mostProblems is how many nodes a summary names.
const mostProblems = 10

// summarize sums the records up, which are in the order of their names, after another status. It depends on nothing but what it is given, so
// that whoever does it comes to the same. Nothing has ended while settling: other nodes may still begin.
func summarize(before *v1.ExperimentStatus, records []*v1.NodeRecord, now time.Time, settling bool) *v1.ExperimentStatus {
	t := tally(records, now)
	s := &v1.ExperimentStatus{
		ObservedGeneration: t.generation, Phase: "running", Pods: uint32(t.pods), HurtNodes: uint32(t.hurt), Injected: t.injected,
		Nodes:    &v1.NodeCounts{Running: uint32(t.running), Ended: uint32(t.ended), Refused: uint32(t.refused), Lost: uint32(t.lost)},
		Problems: problems(records, now),
		Start:    before.GetStart(), Summarizer: before.GetSummarizer(), SummarizerUntil: before.GetSummarizerUntil(), AbortedOn: before.GetAbortedOn(),
	}
	if t.generation == 0 { // there are no records
		s.ObservedGeneration = before.GetObservedGeneration()
	}
	for _, n := range records {
		if s.AbortedOn == "" && n.GetVerdict() == string(experiment.Aborted) {
			s.AbortedOn = n.GetName()
		}
	}
	if t.running == 0 && !settling {
		s.Phase = "ended"
		s.Verdict, s.Message = t.verdict()
	}
	over := s.GetPhase() == "ended"
	conditions := conditions{before: before.GetConditions(), now: now, generation: s.GetObservedGeneration()}
	conditions.set(selected, when(t.pods > 0), either(t.pods > 0, "Chosen", "NoPods"), fmt.Sprintf("%s on %s", several(t.pods, "pod"), several(len(records), "node")))
	switch {
	case t.injected > 0:
		conditions.set(injected, "True", "Harmed", fmt.Sprintf("%d injected, on %s", t.injected, several(t.hurt, "node")))
	case over:
		conditions.set(injected, "False", "NoHarm", "nobody was hurt")
	default:
		conditions.set(injected, "Unknown", "NoHarmYet", "nobody was hurt so far")
	}
	switch {
	case t.stuck > 0:
		conditions.set(recovered, "False", "Stuck", fmt.Sprintf("on %s something is harmless, but not undone yet", several(t.stuck, "node")))
	case over && t.lost > 0:
		conditions.set(recovered, "Unknown", "Lost", fmt.Sprintf("%s did not say what came of it; faults end with their leases", several(t.lost, "node")))
	case over:
		conditions.set(recovered, "True", "Undone", "no fault is on any more")
	default:
		conditions.set(recovered, "False", "Running", fmt.Sprintf("it runs on %s", several(t.running, "node")))
	}
	conditions.set(paused, "False", "NotPaused", "")
	early := t.verdicts[experiment.Aborted]+t.verdicts[experiment.Interrupted]+t.verdicts[experiment.Failed] > 0
	conditions.set(expired, when(over && !early), either(over && !early, "Done", "NotDone"), "")
	conditions.set(aborted, when(early), either(early, "EndedEarly", "NotAborted"), either(early, t.why, ""))
	s.Conditions = conditions.list
	return s
}

// tallied is what the records come to.
type tallied struct {
	pods, hurt, running, ended, refused, lost, stuck int
	injected                                         uint64
	// generation is the oldest that is carried out.
	generation int64
	verdicts   map[experiment.Verdict]int
	// whys are the reason of the first node with each verdict, and why is that of the worst.
	whys map[experiment.Verdict]string
	why  string
}

func tally(nodes []*v1.NodeRecord, now time.Time) tallied {
	t := tallied{verdicts: map[experiment.Verdict]int{}, whys: map[experiment.Verdict]string{}}
	for _, n := range nodes {
		t.pods += len(n.GetTargets())
		t.injected += n.GetCounters().GetInjected()
		if t.generation == 0 || n.GetGeneration() < t.generation {
			t.generation = n.GetGeneration()
		}
		if n.GetCounters().GetInjected() > 0 {
			t.hurt++
		}
		if n.GetStuck() {
			t.stuck++
		}
		verdict, why := experiment.Verdict(n.GetVerdict()), n.GetMessage()
		switch {
		case lost(n, now):
			t.lost++
			verdict, why = experiment.Interrupted, "it did not say what came of it"
		case n.GetPhase() == "running":
			t.running++
			continue
		case n.GetPhase() == "refused":
			t.refused++
		default:
			t.ended++
		}
		if t.verdicts[verdict]++; t.verdicts[verdict] == 1 {
			t.whys[verdict] = n.GetName() + ": " + why
		}
	}
	for _, verdict := range severity {
		if t.verdicts[verdict] > 0 {
			t.why = t.whys[verdict]
			break
		}
	}
	return t
}

// problems are the first nodes on which it did not go as it should, the worst verdicts first.
func problems(records []*v1.NodeRecord, now time.Time) (all []*v1.NodeProblem) {
	for _, n := range records {
		verdict, why := n.GetVerdict(), n.GetMessage()
		switch {
		case lost(n, now):
			verdict, why = string(experiment.Interrupted), "it did not say what came of it"
		case n.GetStuck():
		case slices.Index(severity, experiment.Verdict(verdict)) < 0 || slices.Index(severity, experiment.Verdict(verdict)) >= slices.Index(severity, experiment.Confirmed):
			continue
		}
		all = append(all, &v1.NodeProblem{Node: n.GetName(), Verdict: verdict, Message: cut(why, 256)})
	}
	rank := func(p *v1.NodeProblem) int { return slices.Index(severity, experiment.Verdict(p.GetVerdict())) }
	slices.SortStableFunc(all, func(a, b *v1.NodeProblem) int { return rank(a) - rank(b) })
	return all[:min(len(all), mostProblems)]
}

// verdict is the worst of all, with the reason of one node that came to it.
func (t tallied) verdict() (verdict, message string) {
	total := 0
	for _, n := range t.verdicts {
		total += n
	}
	for _, one := range severity {
		if n := t.verdicts[one]; n > 0 {
			return string(one), cut(fmt.Sprintf("%s on %d of %s; %s", one, n, several(total, "node"), t.whys[one]), 4096)
		}
	}
	return string(experiment.Inert), "no node has anything to do"
}

// conditions are being set; those whose status does not change keep the time since which it is so.
type conditions struct {
	before     []*v1.Condition
	now        time.Time
	generation int64
	list       []*v1.Condition
}

func (c *conditions) set(kind, status, reason, message string) {
	since := clock(c.now)
	if i := slices.IndexFunc(c.before, func(b *v1.Condition) bool { return b.GetType() == kind && b.GetStatus() == status }); i >= 0 {
		since = c.before[i].GetLastTransitionTime()
	}
	c.list = append(c.list, &v1.Condition{Type: kind, Status: status, Reason: reason, Message: cut(message, 4096), LastTransitionTime: since, ObservedGeneration: c.generation})
}

func when(yes bool) string { return either(yes, "True", "False") }

func either(yes bool, one, other string) string {
	if yes {
		return one
	}
	return other
}

// refusedStatus is that of an experiment that begins nowhere.
func refusedStatus(before *v1.ExperimentStatus, generation int64, now time.Time, reason, why string) *v1.ExperimentStatus {
	c := conditions{before: before.GetConditions(), now: now, generation: generation}
	c.set(selected, "False", reason, why)
	c.set(injected, "False", "NoHarm", "nothing was begun")
	c.set(recovered, "True", "Nothing", "nothing was begun")
	c.set(paused, "False", "NotPaused", "")
	c.set(expired, "False", "NotDone", "")
	c.set(aborted, "True", reason, "nothing was begun")
	return &v1.ExperimentStatus{ObservedGeneration: generation, Phase: "ended", Verdict: string(experiment.Failed), Message: cut(why, 4096), Conditions: c.list}
}

// waitingStatus is that of an experiment that waits, for others or for pods: a condition says so.
func waitingStatus(before *v1.ExperimentStatus, generation int64, now time.Time, kind, value, reason, why string) *v1.ExperimentStatus {
	c := conditions{before: before.GetConditions(), now: now, generation: generation}
	c.set(kind, value, reason, why)
	return &v1.ExperimentStatus{ObservedGeneration: generation, Phase: "pending", Message: cut(why, 4096), Conditions: c.list}
}
