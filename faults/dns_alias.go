package faults

import (
	"strings"

	"github.com/miekg/dns"
)

// alias is where the records' CNAME leads, if there is one.
func (r dnsRecords) alias() string {
	for _, record := range r {
		if cname, is := record.(*dns.CNAME); is {
			return cname.Target
		}
	}
	return ""
}

// leadsOn says whether the answer to a query is an alias alone, whose records the server has. Resolvers of programs follow none
// themselves: they expect it of the server.
func (r dnsRecords) leadsOn(q dns.Question) bool {
	return len(r) == 1 && r.alias() != "" && q.Qtype != dns.TypeCNAME && q.Qtype != dns.TypeANY
}

// isAliasOf says whether a query is for the name itself that an alias alone leads to: the server answers that.
func (r dnsRecords) isAliasOf(q dns.Question) bool { return len(r) == 1 && sameName(r.alias(), q.Name) }

func sameName(a, b string) bool { return strings.EqualFold(dns.Fqdn(a), dns.Fqdn(b)) }

// followAlias adds what the server says of the alias. If it does not answer, neither is the alias of any use.
func followAlias(reply, query *dns.Msg, alias string, ask func(*dns.Msg) (*dns.Msg, error)) {
	further := query.Copy()
	further.Question[0].Name = alias
	got, err := ask(further)
	if err != nil {
		reply.Answer, reply.Rcode = nil, dns.RcodeServerFailure
		return
	}
	reply.Answer = append(reply.Answer, got.Answer...)
	reply.Rcode, reply.Truncated = got.Rcode, got.Truncated
}
