package faults

import "strings"

// fitsGlob compares with a pattern in which * is any characters, also dots and none, and ? is one of them.
func fitsGlob(pattern, name string) bool {
	star, from := -1, 0 // the last *, and what of the name comes after what it stands for
	p, i := 0, 0
	for i < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
