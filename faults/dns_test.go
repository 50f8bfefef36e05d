package faults

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"faultd/bpf"
)

func TestDNSNames(t *testing.T) {
	for pattern, names := range map[string]map[string]bool{
		"example.com":     {"example.com.": true, "Example.COM.": true, "a.example.com.": false, "example.com.au.": false, ".": false},
		".example.com":    {"example.com.": true, "a.b.example.com.": true, "notexample.com.": false},
		"*.example.com":   {"a.example.com.": true, "a.b.Example.com.": true, "example.com.": false, ".example.com.": true},
		"api-?.*.cluster": {"api-1.x.y.cluster.": true, "api-12.x.cluster.": false, "api-1.cluster.": false},
		"*":               {".": true, "a.": true},
		"**a*":            {"a.": true, "bab.": true, "b.": false},
		"_sip._tcp.a.b":   {"_sip._tcp.a.b.": true},
		"Example.COM.":    {"example.com.": true},
	} {
		parsed, err := parseDNSNames([]string{pattern})
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for name, want := range names {
			if got := parsed.fit(name); got != want {
				t.Errorf("%s fits %s: %v", pattern, name, got)
			}
		}
	}
	if !(dnsNames{}).fit("a.") {
		t.Error("no name is not every name")
	}
}

func TestDNSRefusals(t *testing.T) {
	for want, d := range map[string]DNS{
		"answers: missing":                  {},
		"delay: missing":                    {Delay: Delay{Jitter: "1s"}},
		"jitter: 2s is more than the delay": {Delay: Delay{Text: "1s", Jitter: "2s"}},
		"delay: 2m is out of range":         {Delay: Delay{Text: "2m"}},
		`names: ""`:                         {Names: []string{""}, Delay: Delay{Text: "1ms"}},
		`names: "."`:                        {Names: []string{"."}, Delay: Delay{Text: "1ms"}},
		`names: "a..b"`:                     {Names: []string{"a..b"}, Delay: Delay{Text: "1ms"}},
		`names: "a.test b.test"`:            {Names: []string{"a.test b.test"}, Delay: Delay{Text: "1ms"}},
		`names: "a.test:53"`:                {Names: []string{"a.test:53"}, Delay: Delay{Text: "1ms"}},
		`names: "*.münchen.de" has letters`: {Names: []string{"*.münchen.de"}, Delay: Delay{Text: "1ms"}},
		`names: "[ab].test"`:                {Names: []string{"[ab].test"}, Delay: Delay{Text: "1ms"}},
		`names: "..a"`:                      {Names: []string{"..a"}, Delay: Delay{Text: "1ms"}},
		`types: "B"`:                        {Types: []string{"B"}, Delay: Delay{Text: "1ms"}},
		`types: "OPT"`:                      {Types: []string{"OPT"}, Delay: Delay{Text: "1ms"}},
		"answers: timeout was given":        {Answers: []string{"10.0.0.1", "timeout"}},
		`answers: "CNAME b" is a second al`: {Answers: []string{"CNAME a", "10.0.0.1", "CNAME b"}},
		`answers: "nxdomain"`:               {Answers: []string{"nxdomain"}},
		`answers: "10.0.0"`:                 {Answers: []string{"10.0.0"}},
		`answers: "::ffff:10.0.0.1"`:        {Answers: []string{"::ffff:10.0.0.1"}},
		`answers: "fe80::1%eth0"`:           {Answers: []string{"fe80::1%eth0"}},
		`answers: "MX"`:                     {Answers: []string{"MX"}},
		`answers: "MX ten mail"`:            {Answers: []string{"MX ten mail"}},
		`answers: "A 10.0.0.1\na A 10.0.0.`: {Answers: []string{"A 10.0.0.1\na A 10.0.0.2"}},
		`answers: "$INCLUDE /etc/passwd"`:   {Answers: []string{"$INCLUDE /etc/passwd"}},
	} {
		if err := d.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", d, err, want)
		}
	}
	for _, answer := range []string{"10.0.0.1", "2001:db8::1", "MX 10 mail.example.com", "CNAME other.example.com.", "SRV 0 0 5060 sip", `TXT "a b" c`, "A 10.0.0.1"} {
		if err := (DNS{Answers: []string{answer}}).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// fakeRule is one without a kernel.
type fakeRule struct {
	meaning any
	lives   int // so often it says that it is alive
	dice    *bpf.Dice
}

func newFakeRule(t *testing.T, meaning any, lives int) *fakeRule {
	t.Helper()
	dice, err := bpf.NewDice(bpf.Rule{Action: bpf.ActionRedirect, Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeRule{meaning, lives, dice}
}

func (r *fakeRule) Alive() bool           { r.lives--; return r.lives >= 0 }
func (r *fakeRule) Meaning() any          { return r.meaning }
func (r *fakeRule) Over() <-chan struct{} { return nil }
func (r *fakeRule) Dice() *bpf.Dice       { return r.dice }

// TestDNSDiesWhileItWaits: a rule that ends meanwhile gives no answer.
func TestDNSDiesWhileItWaits(t *testing.T) {
	query, err := new(dns.Msg).SetQuestion("a.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	late := newFakeRule(t, dnsMeaning{delay: spread{delay: time.Nanosecond}}, 1)
	answers := newFakeRule(t, dnsMeaning{answer: answerNXDomain}, 1)
	if harmQuery(context.Background(), []standInRule{late, answers}, query, dnsClient{network: "udp", send: func([]byte) error { t.Error("it answers"); return nil }}) {
		t.Error("it was not passed on")
	}
	if late.dice.Counters().Injected != 1 || answers.dice.Counters().NotApplied != 1 || answers.dice.Counters().Injected != 0 {
		t.Errorf("counted %+v, %+v", late.dice.Counters(), answers.dice.Counters())
	}
}

// TestDNSAlias: an alias brings the records that it leads to, as a server's answer does.
func TestDNSAlias(t *testing.T) {
	asked := ""
	ask := func(q *dns.Msg) (*dns.Msg, error) {
		asked = q.Question[0].Name
		if asked == "lost." {
			return nil, errors.New("nobody answers")
		}
		reply := new(dns.Msg).SetReply(q)
		record, err := dns.NewRR(asked + " A 10.0.0.1")
		reply.Answer = []dns.RR{record}
		return reply, err
	}
	for name, c := range map[string]struct {
		answers        []string
		question, want string
		typ            uint16
		asks           string
	}{
		"alone":            {[]string{"CNAME b"}, "a.", "a. CNAME b., b. A 10.0.0.1", dns.TypeA, "b."},
		"asked for":        {[]string{"CNAME b"}, "a.", "a. CNAME b.", dns.TypeCNAME, ""},
		"leads to nobody":  {[]string{"CNAME lost"}, "a.", "", dns.TypeA, "lost."},
		"with its address": {[]string{"10.9.9.9", "CNAME b"}, "a.", "a. CNAME b., b. A 10.9.9.9", dns.TypeA, ""},
		"of another type":  {[]string{"10.9.9.9", "CNAME b"}, "a.", "a. CNAME b.", dns.TypeAAAA, ""},
		"of itself":        {[]string{"10.9.9.9", "CNAME b"}, "B.", "B. A 10.9.9.9", dns.TypeA, ""},
	} {
		t.Run(name, func(t *testing.T) {
			asked = ""
			answer, err := parseDNSAnswer(c.answers)
			if err != nil {
				t.Fatal(err)
			}
			packed, err := packReply(new(dns.Msg).SetQuestion(c.question, c.typ), answer, dnsClient{network: "udp", ask: ask})
			reply := new(dns.Msg)
			if err != nil || reply.Unpack(packed) != nil {
				t.Fatal(err)
			}
			var got []string
			for _, record := range reply.Answer {
				fields := strings.Fields(record.String())
				got = append(got, fields[0]+" "+fields[3]+" "+fields[4])
			}
			if strings.Join(got, ", ") != c.want || asked != c.asks || (reply.Rcode != dns.RcodeSuccess) != (c.want == "") {
				t.Errorf("the answer is %q, code %d, and %q was asked for; want %q and %q", got, reply.Rcode, asked, c.want, c.asks)
			}
		})
	}
	alone, err := parseDNSAnswer([]string{"CNAME b"})
	if err != nil {
		t.Fatal(err)
	}
	if (dnsMeaning{answer: alone}).fits(dns.Question{Name: "b.", Qtype: dns.TypeA}, "udp") {
		t.Error("an alias is one of itself")
	}
}

// FuzzDNSQuery: whatever a client sends, it is passed on, or the answer is one to its question, and no longer than it takes.
func FuzzDNSQuery(f *testing.F) {
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeANY} {
		query := new(dns.Msg).SetQuestion("a.Example.com.", typ)
		plain, _ := query.Pack()
		query.SetEdns0(1232, true)
		extended, _ := query.Pack()
		f.Add(plain, true)
		f.Add(extended, false)
	}
	f.Add([]byte{}, true)
	var answers []dnsAnswer
	for _, word := range dnsWords() {
		answers = append(answers, word)
	}
	long := dnsRecords{}
	for range 16 {
		record, err := parseDNSRecord("TXT " + strings.Repeat("x", 200))
		if err != nil {
			f.Fatal(err)
		}
		long = append(long, record)
	}
	answers = append(answers, long)
	f.Fuzz(func(t *testing.T, raw []byte, udp bool) {
		network := map[bool]string{true: "udp", false: "tcp"}[udp]
		for _, answer := range answers {
			rule := newFakeRule(t, dnsMeaning{answer: answer}, 2)
			var reply []byte
			answered := harmQuery(context.Background(), []standInRule{rule}, raw, dnsClient{network: network, send: func(b []byte) error { reply = b; return nil }})
			c := rule.dice.Counters()
			if c.Evaluated != 1 || c.Matched != c.Injected+c.NotApplied || c.Matched+c.Unknown > 1 {
				t.Fatalf("%v: counted %+v", answer, c)
			}
			if answered != (c.Injected == 1) {
				t.Fatalf("%v: answered %v, counted %+v", answer, answered, c)
			}
			if reply != nil {
				checkReply(t, raw, reply, network)
			}
		}
	})
}

func checkReply(t *testing.T, raw, reply []byte, network string) {
	query, got := new(dns.Msg), new(dns.Msg)
	if err := query.Unpack(raw); err != nil {
		t.Fatal(err)
	}
	if err := got.Unpack(reply); err != nil {
		t.Fatalf("%x got %x: %v", raw, reply, err)
	}
	if got.Id != query.Id || !got.Response || len(got.Question) != 1 || got.Question[0] != query.Question[0] {
		t.Fatalf("%v got %v", query, got)
	}
	most := dns.MaxMsgSize
	if network == "udp" {
		most = dns.MinMsgSize
		if edns := query.IsEdns0(); edns != nil {
			most = max(most, int(edns.UDPSize()))
		}
	}
	if len(reply) > most {
		t.Fatalf("the answer has %d bytes, the client takes %d", len(reply), most)
	}
}

// FuzzDNSGlob compares with a regular expression.
func FuzzDNSGlob(f *testing.F) {
	f.Add("*.example.com", "a.example.com")
	f.Add("a?b*c*", "axbcc")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if strings.Count(pattern, "*") > 8 {
			t.Skip("the expression takes too long")
		}
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(latin(pattern)))
		want := regexp.MustCompile("(?s)^" + quoted + "$").MatchString(latin(name))
		if got := fitsGlob(pattern, name); got != want {
			t.Errorf("%q fits %q: %v, want %v", pattern, name, got, want)
		}
	})
}

// latin has a character for each byte.
func latin(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteRune(rune(c))
	}
	return b.String()
}
