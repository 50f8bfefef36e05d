package faults

import (
	"context"
	"time"

	"github.com/miekg/dns"
)

// parseQuery reads a message; false: it is none that a rule could be about.
func parseQuery(raw []byte) (*dns.Msg, bool) {
	query := new(dns.Msg)
	if err := query.Unpack(raw); err != nil {
		return nil, false
	}
	return query, !query.Response && query.Opcode == dns.OpcodeQuery && len(query.Question) == 1
}

// harmQuery asks the rules, oldest first, and does their harm: it waits, and answers by send. False: the query is to be passed on to its server.
func harmQuery(ctx context.Context, rules []standInRule, raw []byte, network string, send func([]byte) error) (answered bool) {
	query, ok := parseQuery(raw)
	if !ok {
		for _, rule := range rules {
			if rule.Alive() {
				rule.Dice().Evaluated()
				rule.Dice().Unknown()
			}
		}
		return false
	}
	late, by := judgeQuery(rules, query.Question[0], network)
	cut := false
	for _, l := range late {
		cut = wait(ctx, l.rule, l.wait)
		if l.rule != by {
			countHarm(l.rule, cut)
		}
	}
	if by == nil {
		return false
	}
	// The one that answers is the last of those that delay.
	delayed := len(late) > 0 && late[len(late)-1].rule == by
	return answerQuery(by, query, network, delayed, delayed && cut, send)
}

// dueDelay is a delay as it was drawn.
type dueDelay struct {
	rule standInRule
	wait time.Duration
}

// judgeQuery throws the dice: which rules delay the query, and which one answers it. An answer ends the search: a later rule was looked at, and not reached.
func judgeQuery(rules []standInRule, q dns.Question, network string) (late []dueDelay, by standInRule) {
	for _, rule := range rules {
		if !rule.Alive() {
			continue
		}
		rule.Dice().Evaluated()
		m := rule.Meaning().(dnsMeaning)
		if by != nil || !m.fits(q, network) {
			continue
		}
		hurt, thrown := rule.Dice().DueBy()
		if !hurt {
			continue
		}
		if m.delay.given() {
			late = append(late, dueDelay{rule, m.delay.draw(thrown)})
		}
		if m.answer != nil {
			by = rule
		}
	}
	return late, by
}

// answerQuery answers, if the rule still may.
func answerQuery(rule standInRule, query *dns.Msg, network string, delayed, cut bool, send func([]byte) error) bool {
	if !rule.Alive() {
		if delayed {
			countHarm(rule, true)
		} else {
			rule.Dice().NotApplied()
		}
		return false
	}
	reply, err := packReply(query, rule.Meaning().(dnsMeaning).answer, network)
	if err != nil {
		rule.Dice().NotApplied()
		return false
	}
	if reply != nil && send(reply) != nil {
		rule.Dice().NotApplied()
		return true
	}
	countHarm(rule, cut)
	return true
}
