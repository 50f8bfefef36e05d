package bpf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"

	"faultd/test/vm/guest"
)

func compile(t testing.TB, include, exclude []string) *GlobTable {
	t.Helper()
	table, err := CompileGlobs(include, exclude)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestGlobMatches(t *testing.T) {
	for _, c := range []struct{ glob, fits, fitsNot string }{
		{"/", "/", "/a"},
		{"/a", "/a", "/ /b /ab /a/b"},
		{"/*", "/a /ab", "/a/b"},
		{"/a*c", "/ac /abc /abbc", "/ab /a/c /acd"},
		{"/a/?", "/a/b /a/é", "/a /a/bc /a/\xc3"},
		{"/a/**", "/a /a/b /a/b/c", "/ab /b/a /"},
		{"**", "/ /a /a/b", ""},
		{"/**", "/ /a /a/b", ""},
		{"**/x", "/x /a/x /a/b/x", "/ax /x/a /a/xx"},
		{"/**/x", "/x /a/x /a/b/x", "/ax /x/a"},
		{"/a/**/b", "/a/b /a/x/b /a/x/y/b", "/a/xb /ab /a /b"},
		{"/a/**/*", "/a/b /a/b/c", "/a"},
		{"/a/**/**", "/a /a/b", "/b"},
		{"**/*.log", "/x.log /a/.log /a/b/x.log", "/x.log/a /xlog"},
		{"/a/b**c", "/a/bc /a/bxc", "/a/b/c"},
		{"/a/***", "/a/b", "/a /a/b/c"},
		{"/[a-c]", "/a /b /c", "/d /- /ab"},
		{"/[!a-c]x", "/dx /éx", "/ax /x //x"},
		{"/[^a]", "/b", "/a"},
		{"/[a\\-c]", "/a /- /c", "/b"},
		{"/[a-]", "/a /-", "/b"},
		{"/[+-9]", "/+ /- /. /0", "/a //"},
		{"/[à-ï]", "/é", "/e /ð"},
		{"/[\\]]", "/]", "/["},
		{"/{a,b}/c", "/a/c /b/c", "/c /ab/c"},
		{"/x{,y,z{1,2}}", "/x /xy /xz1 /xz2", "/xz /x1"},
		{"/{a/**,b}/c", "/a/c /a/x/c /b/c", "/b/x/c"},
		{"{/a,/b}/**", "/a /b/c", "/c"},
		{"/{,a/}b", "/b /a/b", "/ab"},
		{"/a,b", "/a,b", "/a"},
		{"/\\*\\{\\\\", "/*{\\", "/x"},
		{"/a\\/**", "/a /a/b", "/b"},
		{"/été", "/été", "/ete"},
	} {
		table := compile(t, []string{c.glob}, nil)
		for _, path := range strings.Fields(c.fits) {
			if !table.Match(path) {
				t.Errorf("%s does not fit %s", path, c.glob)
			}
		}
		for _, path := range strings.Fields(c.fitsNot) {
			if table.Match(path) {
				t.Errorf("%s fits %s", path, c.glob)
			}
		}
	}
}

func TestGlobsIncludeAndExclude(t *testing.T) {
	table := compile(t, []string{"/data/**", "/etc/*.conf"}, []string{"**/*.tmp", "/data/cache/**"})
	for path, want := range map[string]bool{
		"/data/x": true, "/data": true, "/data/a/b": true, "/etc/a.conf": true, "/data/caches": true,
		"/data/x.tmp": false, "/data/cache": false, "/data/cache/x": false, "/etc/a": false, "/x": false,
	} {
		if table.Match(path) != want {
			t.Errorf("%s: got %v", path, !want)
		}
	}
	everythingBut := compile(t, nil, []string{"/proc/**"})
	if !everythingBut.Match("/x") || everythingBut.Match("/proc/self") || !everythingBut.Match("/proce") {
		t.Error("all but /proc is something else")
	}
	if all := compile(t, nil, nil); !all.Match("/x") || !all.Match("/") || all.table.Start != all.table.All {
		t.Errorf("no globs are not everything at once: start %d, all %d", all.table.Start, all.table.All)
	}
}

// TestGlobEndsEarly: the kernel need not read on where nothing can change any more.
func TestGlobEndsEarly(t *testing.T) {
	table := compile(t, []string{"/data/**"}, nil)
	if table.table.All == 0 {
		t.Error("the rest of /data/** is not known to fit")
	}
	state := table.table.Start
	for _, b := range []byte("/etc") {
		state = table.table.Next[state/2+uint16(table.table.ClassOf[b])]
	}
	if state != 0 {
		t.Error("/etc is not dead for /data/**")
	}
}

func TestGlobErrors(t *testing.T) {
	long := "/" + strings.Repeat("a", MaxGlobLength)
	for glob, want := range map[string]string{
		"":            "empty",
		"a":           "relative",
		"*":           "relative",
		"**x":         "relative",
		"{/a,b}":      "relative",
		"{,/a}":       "relative",
		"./a":         "relative",
		"/[a":         "[ is not closed",
		"/[":          "[ is not closed",
		"/[!":         "[ is not closed",
		"/[a-":        "[ is not closed",
		"/[a\\":       "[ is not closed",
		"/[]a":        "[ ] is empty",
		"/[!]a]":      "[ ] is empty",
		"/[c-a]":      "range c-a",
		"/[/]":        "contains a /",
		"/[+-/]":      "contains a /",
		"/{a":         "{ is not closed",
		"/{a,{b}":     "{ is not closed",
		"/a}":         "} has no {",
		"/a\\":        "ends in \\",
		long:          "4097 bytes",
		"/\xff":       "UTF-8",
		"/a\x00":      "zero byte",
		"/a/":         "no path fits",
		"/a//b":       "no path fits",
		"/a/../b":     "no path fits",
		"/./b":        "no path fits",
		"/a/{b/,c//}": "no path fits",
	} {
		for _, exclude := range []bool{false, true} {
			include, excluded := []string{"/ok", glob}, []string(nil)
			if exclude {
				include, excluded = nil, []string{glob}
			}
			_, err := CompileGlobs(include, excluded)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", glob)) {
				t.Errorf("%.20q: got %v, want %q", glob, err, want)
			}
		}
	}
	if _, err := CompileGlobs(make([]string, MaxGlobs+1), nil); err == nil || !strings.Contains(err.Error(), "65 are given") {
		t.Errorf("too many: %v", err)
	}
	if _, err := CompileGlobs([]string{"/a/b"}, []string{"/a/**"}); err == nil || !strings.Contains(err.Error(), "leave no path") {
		t.Errorf("nothing left: %v", err)
	}
	if _, err := CompileGlobs([]string{"/*a" + strings.Repeat("[!b]", 20)}, nil); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("too large: %v", err)
	} else {
		t.Log(err)
	}
}

// TestGlobTableIsLargeEnough: what people write fits by far.
func TestGlobTableIsLargeEnough(t *testing.T) {
	var globs []string
	for i := range MaxGlobs {
		globs = append(globs, fmt.Sprintf("/var/lib/app-%d/**/*.%c%d", i, 'a'+i%26, i))
	}
	table := compile(t, globs, nil)
	t.Logf("%d globs: %d states, %d entries", len(globs), table.states, table.Size())
	if !table.Match("/var/lib/app-63/x/y.l63") || table.Match("/var/lib/app-63/x/y.l62") {
		t.Error("it matches wrongly")
	}
	compile(t, []string{"/" + strings.Repeat("a", MaxGlobLength-1)}, nil)
}

// TestGlobIsDoublestar compares with another implementation, whose globs these are, on random ones. FuzzGlob goes on from
// there. The differences are meant:
//
//   - a set of characters never fits a /
//   - characters are UTF-8: ? and [ ] do not fit other bytes
//   - in /a/{**,x}, /a/**/**, /a*/**, /a*** and /a*{,b} what is empty fits too, and so the root fits /*/**
//   - what ends in / fits nothing but the root, also behind **
//   - \/ is a /, also beside **
//   - a set with a / or an empty range, and a glob that no path can fit, are errors, as are relative globs
func TestGlobIsDoublestar(t *testing.T) {
	if os.Getenv(guest.KernelVar) != "" {
		t.Skip("the same on every kernel: runs on the host")
	}
	random := rand.New(rand.NewPCG(1, 2))
	compared, fit, globs := 0, 0, 3000
	for range globs {
		glob := randomText(random, 1+random.IntN(8), globParts)
		table, plain := comparable(glob)
		for range 20 {
			if plain == nil || t.Failed() {
				break
			}
			compared++
			if compare(t, glob, table, plain, randomPath(random)) {
				fit++
			}
		}
	}
	t.Logf("%d compared, %d fit", compared, fit)
	if compared < 5*globs || fit < globs/4 {
		t.Errorf("too few compared: %d, of which %d fit", compared, fit)
	}
}

var (
	globParts = []string{"/", "/", "a", "b", "é", "*", "**", "/**", "/**/", "?", "[ab]", "[!a]", "[^é]", "[a-c]", "{", ",", "}", "{a,b}", "{a,*/}", "\\*", "-", "."}
	pathParts = []string{"/", "/", "/", "a", "b", "c", "é", "*", "-", "."}
)

func randomText(random *rand.Rand, parts int, from []string) string {
	var text strings.Builder
	if len(from) == len(globParts) {
		text.WriteString([]string{"/", "/", "**/", "/**/", "{/a,/b}"}[random.IntN(5)])
	}
	for range parts {
		text.WriteString(from[random.IntN(len(from))])
	}
	return text.String()
}

func randomPath(random *rand.Rand) string {
	return cleaned("/" + randomText(random, random.IntN(8), pathParts))
}

// cleaned makes a path as the kernel would give it.
func cleaned(path string) string {
	var kept strings.Builder
	for component := range strings.SplitSeq(path, "/") {
		if component != "" && component != "." && component != ".." {
			kept.WriteString("/" + component)
		}
	}
	if kept.Len() == 0 {
		return "/"
	}
	return kept.String()
}

// comparable gives a glob's table and what it is without braces, or nothing if the two are not meant to agree on it.
func comparable(glob string) (*GlobTable, []string) {
	table, err := CompileGlobs([]string{glob}, nil)
	if err != nil || strings.Contains(glob, "\\/") {
		return nil, nil
	}
	return table, withoutBraces(glob)
}

// compare fails if the two do not agree on a path, and says whether it fits.
func compare(t *testing.T, glob string, table *GlobTable, plain []string, path string) bool {
	t.Helper()
	if !utf8.ValidString(path) || path == "/" && strings.Contains(glob, "*") {
		return false
	}
	want := false
	for _, p := range plain {
		want = want || doublestarFits(t, p, path)
	}
	if got := table.Match(path); got != want {
		t.Errorf("%q and %q: got %v, doublestar says %v", glob, path, got, want)
	}
	return want
}

func doublestarFits(t *testing.T, glob, path string) bool {
	t.Helper()
	if strings.HasSuffix(glob, "/") && glob != "/" {
		return false
	}
	for strings.HasSuffix(glob, "/**/**") {
		glob = strings.TrimSuffix(glob, "/**")
	}
	fits, err := doublestar.Match(glob, path)
	if err != nil {
		t.Errorf("doublestar refuses %q", glob)
	}
	// What /** at the end may leave out, doublestar does not always see at the end of the path.
	if strings.HasSuffix(glob, "/**") && !fits {
		fits, _ = doublestar.Match(glob, path+"/")
	}
	return fits
}

// withoutBraces gives the globs that one with braces stands for, or nothing if they are too many or not to be compared.
func withoutBraces(glob string) []string {
	all := []string{""}
	var before, so [][]string // of each open brace: what is before it, its alternatives so far
	for i := 0; i < len(glob); i++ {
		text, last := glob[i:i+1], len(before)-1
		switch {
		case text == "\\":
			text = glob[i : i+2]
			i++
		case text == "[":
			end := classEnd(glob, i)
			text = setWithoutSlash(glob[i:end])
			i = end - 1
		case text == "{":
			before, so = append(before, all), append(so, nil)
			all, text = append([]string(nil), all...), ""
		case text == "," && last >= 0:
			so[last] = append(so[last], all...)
			all, text = append([]string(nil), before[last]...), ""
		case text == "}":
			all, text = append(so[last], all...), ""
			before, so = before[:last], so[:last]
		}
		for j := range all {
			all[j] += text
		}
		if len(all) > 64 {
			return nil
		}
	}
	for _, plain := range all {
		if strings.Contains(plain, "***") || strings.Contains(plain, "//") || strings.Contains(plain, "\x00") {
			return nil
		}
	}
	return all
}

// classEnd is behind the ] of the [ at begin.
func classEnd(glob string, begin int) int {
	for i := begin + 1; ; i++ {
		switch glob[i] {
		case '\\':
			i++
		case ']':
			return i + 1
		}
	}
}

// setWithoutSlash is a [ ] that does not fit a /, for doublestar; where that cannot be written, something not compared.
func setWithoutSlash(set string) string {
	if set[1] == '!' || set[1] == '^' {
		return "[!/" + set[2:]
	}
	for i := 2; i+2 < len(set); i++ {
		if set[i] == '-' && set[i-1] < '/' && set[i+1] > '/' {
			return "//"
		}
	}
	return set
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"/a/**/b", "/a/x/b"}, {"**/*.{log,txt}", "/x.log"}, {"/[!a-c]?", "/dé"}, {"/\\[{a,{b,}c}", "/[c"},
		{"/{*,a}*", "/a/b"}, {"/{**,x/**/}/y", "/y"}, {"/[a-", "/"}, {"/*a?????", "/aaaa"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, glob, path string) {
		if table, plain := comparable(glob); plain != nil {
			compare(t, glob, table, plain, cleaned(path))
		}
	})
}

func BenchmarkGlobCompile(b *testing.B) {
	globs := make([]string, 16)
	for i := range globs {
		globs[i] = fmt.Sprintf("/var/lib/app-%d/**/*.log", i)
	}
	for b.Loop() {
		compile(b, globs, nil)
	}
}
