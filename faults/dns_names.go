package faults

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// dnsNames are patterns of names, in lower case and without the final dot; none fits everything.
type dnsNames []string

// maxDNSName is the longest name in its written form, escapes apart.
const maxDNSName = 255

// strangeSigns are in no name that programs ask for, but in what was meant to be several names, an address with a port or another kind of glob.
const strangeSigns = " \t:@[]"

func parseDNSNames(texts []string) (names dnsNames, err error) {
	for _, text := range texts {
		if !isASCII(text) {
			return nil, fmt.Errorf("names: %q has letters that are asked for in another form; write it in that, which has xn-- in it", text)
		}
		name := strings.ToLower(strings.TrimSuffix(text, "."))
		if _, valid := dns.IsDomainName(strings.TrimPrefix(name, ".")); name == "" || len(name) > maxDNSName || !valid || strings.HasPrefix(name, "..") || strings.ContainsAny(name, strangeSigns) {
			return nil, fmt.Errorf("names: %q is no name of a domain; write it as example.com, .example.com (with all below it) or *.example.com", text)
		}
		names = append(names, name)
	}
	return names, nil
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) }

// fit says whether a name as in a query fits one of the patterns. Letters are alike in either case.
func (n dnsNames) fit(name string) bool {
	if len(n) == 0 {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, pattern := range n {
		switch {
		case strings.HasPrefix(pattern, "."):
			if "."+name == pattern || strings.HasSuffix(name, pattern) {
				return true
			}
		case fitsGlob(pattern, name):
			return true
		}
	}
	return false
}
