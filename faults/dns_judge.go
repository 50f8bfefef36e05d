package faults

import (
	"context"

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
	for _, rule := range late {
		cut = wait(ctx, rule, rule.Meaning().(dnsMeaning).delay)
		if rule != by {
			countHarm(rule, cut)
		}
	}
	if by == nil {
		return false
	}
	// The one that answers is the last of those that delay.
	delayed := len(late) > 0 && late[len(late)-1] == by
	return answerQuery(by, query, network, delayed, delayed && cut, send)
}

// judgeQuery throws the dice: which rules delay the query, and which one answers it. An answer ends the search: a later rule was looked at, and not reached.
func judgeQuery(rules []standInRule, q dns.Question, network string) (late []standInRule, by standInRule) {
	for _, rule := range rules {
		if !rule.Alive() {
			continue
		}
		rule.Dice().Evaluated()
		m := rule.Meaning().(dnsMeaning)
		if by != nil || !m.fits(q, network) || !rule.Dice().Due() {
			continue
		}
		if m.delay > 0 {
			late = append(late, rule)
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
