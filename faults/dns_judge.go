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

// dnsClient is who sent a query.
type dnsClient struct {
	network string // udp or tcp
	send    func([]byte) error
	ask     func(*dns.Msg) (*dns.Msg, error) // asks the server that was meant
}

// harmQuery asks the rules, oldest first, and does their harm: it waits, and answers. False: the query is to be passed on to its server.
func harmQuery(ctx context.Context, rules []standInRule, raw []byte, by dnsClient) (answered bool) {
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
	late, due := judgeQuery(rules, query.Question[0], by.network)
	cut := false
	for _, l := range late {
		cut = wait(ctx, l.rule, l.wait)
		if l.rule != due {
			countHarm(l.rule, cut)
		}
	}
	if due == nil {
		return false
	}
	// The one that answers is the last of those that delay.
	delayed := len(late) > 0 && late[len(late)-1].rule == due
	return answerQuery(due, query, by, delayed, delayed && cut)
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

// answerQuery answers, if the rule still may, which it is asked last: to follow an alias takes time.
func answerQuery(rule standInRule, query *dns.Msg, by dnsClient, delayed, cut bool) bool {
	reply, err := packReply(query, rule.Meaning().(dnsMeaning).answer, by)
	if !rule.Alive() {
		if delayed {
			countHarm(rule, true)
		} else {
			rule.Dice().NotApplied()
		}
		return false
	}
	if err != nil {
		rule.Dice().NotApplied()
		return false
	}
	if reply != nil && by.send(reply) != nil {
		rule.Dice().NotApplied()
		return true
	}
	countHarm(rule, cut)
	return true
}
