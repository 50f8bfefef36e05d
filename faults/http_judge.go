package faults

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// httpRule is a rule of the target, as *bpf.Installed.
type httpRule interface {
	standInRule
	Means(netip.AddrPort) bool
}

// dueHarm is a rule that hurts a request, by what the dice say.
type dueHarm struct {
	rule httpRule
	httpMeaning
	wait    time.Duration // as it was drawn
	cut     bool          // it ended early
	counted sync.Once
}

// judgeRequest throws the dice. An answer ends the search: a later rule was looked at, and not reached.
func judgeRequest(rules []httpRule, r *http.Request, server netip.AddrPort) (due []*dueHarm) {
	answered := false
	for _, rule := range rules {
		if !rule.Alive() || !rule.Means(server) {
			continue
		}
		rule.Dice().Evaluated()
		m := rule.Meaning().(httpMeaning)
		if answered || !m.fits(r) {
			continue
		}
		hurt, thrown := rule.Dice().DueBy()
		if !hurt {
			continue
		}
		due = append(due, &dueHarm{rule: rule, httpMeaning: m, wait: m.delay.draw(thrown)})
		answered = m.answer != nil
	}
	return due
}

// countOutOfReach counts a connection on which nobody can tell requests.
func countOutOfReach(rules []httpRule, server netip.AddrPort) {
	for _, rule := range rules {
		if rule.Alive() && rule.Means(server) {
			rule.Dice().OutOfReach()
		}
	}
}

// await waits as long as the rules say, one after the other; it gives those that have more to do.
func await(ctx context.Context, due []*dueHarm) (more []*dueHarm) {
	for _, h := range due {
		if h.delay.given() {
			h.cut = wait(ctx, h.rule, h.wait)
		}
		if h.answer == nil && !h.change.ofRequest() && !h.change.ofResponse() {
			countHarm(h.rule, h.cut)
		} else if h.mayGoOn() {
			more = append(more, h)
		}
	}
	return more
}

// mayGoOn says whether the rule still may do harm after its delay; else it is counted.
func (h *dueHarm) mayGoOn() bool {
	if h.rule.Alive() {
		return true
	}
	if h.delay.given() {
		countHarm(h.rule, true)
	} else {
		h.rule.Dice().NotApplied()
	}
	return false
}

// count says what became of it; what is said first holds.
func (h *dueHarm) count(applied bool) {
	h.counted.Do(func() {
		if applied || h.delay.given() {
			countHarm(h.rule, h.cut)
		} else {
			h.rule.Dice().NotApplied()
		}
	})
}
