package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// tokenKind is a kind of part of a glob.
type tokenKind int

const (
	tokenNone  tokenKind = iota // nothing: it joins alternatives
	tokenSlash                  // /
	tokenStar                   // one *; what two mean depends on what is around them
	tokenChars                  // one character of a set
)

// runeRange is the characters from low to high, both included.
type runeRange struct{ low, high rune }

// globEdge leads to another node of the graph by a token.
type globEdge struct {
	kind  tokenKind
	chars []runeRange
	to    int
}

// globGraph is a parsed glob: every way from node 0 to the last node is a glob without braces.
type globGraph struct {
	edges [][]globEdge
}

func (g *globGraph) node() int {
	g.edges = append(g.edges, nil)
	return len(g.edges) - 1
}

func (g *globGraph) link(from int, e globEdge) {
	g.edges[from] = append(g.edges[from], e)
}

// globParser reads a glob from left to right.
type globParser struct {
	globGraph
	rest string
}

func parseGlob(glob string) (*globGraph, error) {
	p := &globParser{rest: glob}
	end, err := p.sequence(p.node(), 0)
	if err != nil {
		return nil, err
	}
	p.link(end, globEdge{to: p.node()})
	return &p.globGraph, nil
}

func (p *globParser) take() rune {
	r, size := utf8.DecodeRuneInString(p.rest)
	p.rest = p.rest[size:]
	return r
}

// sequence reads tokens behind the node at, until the braces around them end the sequence, and gives the node behind them.
func (p *globParser) sequence(at, depth int) (int, error) {
	for p.rest != "" {
		if depth > 0 && (p.rest[0] == ',' || p.rest[0] == '}') {
			return at, nil
		}
		next, err := p.token(at, depth)
		if err != nil {
			return 0, err
		}
		at = next
	}
	if depth > 0 {
		return 0, errors.New("a { is not closed; \\{ is the character")
	}
	return at, nil
}

func (p *globParser) token(at, depth int) (int, error) {
	e := globEdge{kind: tokenChars}
	var err error
	switch r := p.take(); r {
	case '{':
		return p.alternatives(at, depth+1)
	case '}':
		return 0, errors.New("a } has no {; \\} is the character")
	case '/':
		e.kind = tokenSlash
	case '*':
		e.kind = tokenStar
	case '?':
		e.chars = withoutSlash([]runeRange{{0, utf8.MaxRune}})
	case '[':
		e.chars, err = p.class()
	case '\\':
		e, err = p.escaped()
	default:
		e.chars = []runeRange{{r, r}}
	}
	if err != nil {
		return 0, err
	}
	e.to = p.node()
	p.link(at, e)
	return e.to, nil
}

func (p *globParser) escaped() (globEdge, error) {
	if p.rest == "" {
		return globEdge{}, errors.New("it ends in \\; \\\\ is the character")
	}
	r := p.take()
	if r == '/' {
		return globEdge{kind: tokenSlash}, nil
	}
	return globEdge{kind: tokenChars, chars: []runeRange{{r, r}}}, nil
}

// alternatives reads what is behind a {, up to its }.
func (p *globParser) alternatives(at, depth int) (int, error) {
	end := p.node()
	for {
		first := p.node()
		p.link(at, globEdge{to: first})
		last, err := p.sequence(first, depth)
		if err != nil {
			return 0, err
		}
		p.link(last, globEdge{to: end})
		if p.take() == '}' {
			return end, nil
		}
	}
}

// class reads what is behind a [, up to its ].
func (p *globParser) class() ([]runeRange, error) {
	negated := strings.HasPrefix(p.rest, "!") || strings.HasPrefix(p.rest, "^")
	if negated {
		p.take()
	}
	if strings.HasPrefix(p.rest, "]") {
		return nil, errors.New("a [ ] is empty; [\\]] is the character ]")
	}
	var chars []runeRange
	for !strings.HasPrefix(p.rest, "]") {
		r, err := p.classRange()
		if err != nil {
			return nil, err
		}
		chars = append(chars, r)
	}
	p.take()
	if negated {
		return withoutSlash(complement(chars)), nil
	}
	return withoutSlash(chars), nil
}

func (p *globParser) classRange() (runeRange, error) {
	low, err := p.classRune()
	if err != nil {
		return runeRange{}, err
	}
	if len(p.rest) < 2 || p.rest[0] != '-' || p.rest[1] == ']' {
		return runeRange{low, low}, nil
	}
	p.take()
	high, err := p.classRune()
	if err != nil {
		return runeRange{}, err
	}
	if high < low {
		return runeRange{}, fmt.Errorf("the range %c-%c in [ ] is empty", low, high)
	}
	return runeRange{low, high}, nil
}

func (p *globParser) classRune() (rune, error) {
	escaped := strings.HasPrefix(p.rest, "\\")
	if escaped {
		p.take()
	}
	if p.rest == "" {
		return 0, errors.New("a [ is not closed; \\[ is the character")
	}
	r := p.take()
	if r == '/' {
		return 0, errors.New("a [ ] contains a /, which it never fits")
	}
	return r, nil
}

// complement is all characters but those.
func complement(chars []runeRange) []runeRange {
	chars = slices.Clone(chars)
	slices.SortFunc(chars, func(a, b runeRange) int { return int(a.low - b.low) })
	var rest []runeRange
	next := rune(0)
	for _, r := range chars {
		if r.low > next {
			rest = append(rest, runeRange{next, r.low - 1})
		}
		next = max(next, r.high+1)
	}
	if next <= utf8.MaxRune {
		rest = append(rest, runeRange{next, utf8.MaxRune})
	}
	return rest
}

func withoutSlash(chars []runeRange) []runeRange {
	var rest []runeRange
	for _, r := range chars {
		if r.low > '/' || r.high < '/' {
			rest = append(rest, r)
			continue
		}
		if r.low < '/' {
			rest = append(rest, runeRange{r.low, '/' - 1})
		}
		if r.high > '/' {
			rest = append(rest, runeRange{'/' + 1, r.high})
		}
	}
	return rest
}
