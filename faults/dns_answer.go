package faults

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// dnsAnswer makes what the target gets instead of the server's answer.
type dnsAnswer interface {
	// reply fills in the reply to a query; false: there shall be none.
	reply(reply *dns.Msg, q dns.Question) bool
}

// dnsWord is an answer that is the same for every query.
type dnsWord string

// The words.
const (
	answerNXDomain  dnsWord = "NXDOMAIN"
	answerServFail  dnsWord = "SERVFAIL"
	answerRefused   dnsWord = "REFUSED"
	answerTimeout   dnsWord = "timeout"
	answerTruncated dnsWord = "truncated"
	answerRandom    dnsWord = "random"
)

func dnsWords() []dnsWord {
	return []dnsWord{answerNXDomain, answerServFail, answerRefused, answerTimeout, answerTruncated, answerRandom}
}

func (w dnsWord) reply(reply *dns.Msg, q dns.Question) bool {
	switch w {
	case answerTimeout:
		return false
	case answerTruncated:
		reply.Truncated = true
	case answerRandom:
		reply.Answer = randomAddress(q)
	default:
		reply.Rcode = dns.StringToRcode[string(w)]
	}
	return true
}

// randomAddress is one of those for documentation (RFC 5737, RFC 3849): nobody has them, and nobody is sent the target's traffic.
func randomAddress(q dns.Question) []dns.RR {
	switch q.Qtype {
	case dns.TypeA:
		nets := [][3]byte{{192, 0, 2}, {198, 51, 100}, {203, 0, 113}}
		n := nets[rand.IntN(len(nets))]
		return []dns.RR{addressRecord(q.Name, netip.AddrFrom4([4]byte{n[0], n[1], n[2], byte(1 + rand.IntN(254))}))}
	case dns.TypeAAAA:
		address := [16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8}
		for i := 4; i < 16; i++ {
			address[i] = byte(rand.Uint32())
		}
		return []dns.RR{addressRecord(q.Name, netip.AddrFrom16(address))}
	}
	return nil
}

// addressRecord has no time to live: nobody shall remember it when the fault is over.
func addressRecord(name string, address netip.Addr) dns.RR {
	header := dns.RR_Header{Name: name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET}
	if address.Is4() {
		header.Rrtype = dns.TypeA
		return &dns.A{Hdr: header, A: address.AsSlice()}
	}
	return &dns.AAAA{Hdr: header, AAAA: address.AsSlice()}
}

// dnsRecords are chosen answers. A query gets those of its type, or else none: the name is there and has no such record.
// With an alias (CNAME) it gets that, and the others are the alias's.
type dnsRecords []dns.RR

func (r dnsRecords) reply(reply *dns.Msg, q dns.Question) bool {
	name := q.Name
	if alias := r.alias(); alias != "" && !sameName(alias, q.Name) {
		reply.Answer = append(reply.Answer, r.named(q.Name, dns.TypeCNAME)...)
		name = alias
	}
	if q.Qtype != dns.TypeCNAME {
		reply.Answer = append(reply.Answer, r.named(name, q.Qtype)...)
	}
	return true
}

// named gives the records of a type, as those of a name. All are meant with ANY, but the alias.
func (r dnsRecords) named(name string, typ uint16) (records []dns.RR) {
	for _, record := range r {
		t := record.Header().Rrtype
		if t != typ && (typ != dns.TypeANY || t == dns.TypeCNAME) {
			continue
		}
		record = dns.Copy(record)
		record.Header().Name = name
		records = append(records, record)
	}
	return records
}

func parseDNSAnswer(texts []string) (dnsAnswer, error) {
	for _, word := range dnsWords() {
		if !slices.Contains(texts, string(word)) {
			continue
		}
		if len(texts) > 1 {
			return nil, fmt.Errorf("answers: %s was given together with others (%s); it stands alone", word, strings.Join(texts, ", "))
		}
		return word, nil
	}
	var records dnsRecords
	for _, text := range texts {
		record, err := parseDNSRecord(text)
		if err != nil {
			return nil, err
		}
		if record.Header().Rrtype == dns.TypeCNAME && records.alias() != "" {
			return nil, fmt.Errorf("answers: %q is a second alias; a name has one", text)
		}
		records = append(records, record)
	}
	return records, nil
}

// parseDNSRecord reads an address, or a record without its name, such as "MX 10 mail.example.com".
func parseDNSRecord(text string) (dns.RR, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" && !address.Is4In6() {
		return addressRecord(".", address), nil
	}
	typ, data, _ := strings.Cut(text, " ")
	t, known := dns.StringToType[typ]
	if known && !strings.ContainsAny(text, "\n;()$") {
		// With the root as origin names need no final dot.
		parser := dns.NewZoneParser(strings.NewReader(". 0 IN "+typ+" "+data+"\n"), ".", "")
		if record, ok := parser.Next(); ok && record.Header().Rrtype == t {
			return record, nil
		}
	}
	return nil, fmt.Errorf("answers: %q is no answer; give one of %s, addresses such as 10.1.2.3, or records such as CNAME other.example.com, MX 10 mail.example.com, SRV 0 0 5060 sip.example.com, TXT text",
		text, joinWords(dnsWords()))
}

func joinWords(words []dnsWord) string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return strings.Join(texts, ", ")
}

// leastUDP is what a client takes that says nothing (RFC 1035).
const leastUDP = dns.MinMsgSize

// packReply makes the message that answers a query, or nil for none.
func packReply(query *dns.Msg, answer dnsAnswer, by dnsClient) ([]byte, error) {
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	if !answer.reply(reply, query.Question[0]) {
		return nil, nil
	}
	if records, is := answer.(dnsRecords); is && records.leadsOn(query.Question[0]) {
		followAlias(reply, query, records.alias(), by.ask)
	}
	size := dns.MaxMsgSize
	if by.network == "udp" {
		size = leastUDP
	}
	if edns := query.IsEdns0(); edns != nil {
		reply.SetEdns0(edns.UDPSize(), edns.Do())
		if by.network == "udp" {
			size = max(size, int(edns.UDPSize()))
		}
	}
	reply.Truncate(size)
	packed, err := reply.Pack()
	if err != nil {
		return nil, fmt.Errorf("make an answer: %w", err)
	}
	return packed, nil
}
