package bpf

import "errors"

// verdict is a set of what an automaton has found.
type verdict uint8

const (
	included verdict = 1 << iota
	excluded
)

// nfa is a nondeterministic automaton over the bytes of a path.
type nfa struct {
	states []nfaState
	start  int
}

type nfaState struct {
	verdict verdict
	empty   []int // states reached without a byte
	edges   []nfaEdge
}

type nfaEdge struct {
	byteRange
	to int
}

func newNFA() *nfa {
	n := &nfa{}
	n.start = n.state()
	return n
}

func (n *nfa) state() int {
	n.states = append(n.states, nfaState{})
	return len(n.states) - 1
}

func (n *nfa) accept(v verdict) int {
	s := n.state()
	n.states[s].verdict = v
	return s
}

func (n *nfa) link(from, to int) {
	n.states[from].empty = append(n.states[from].empty, to)
}

func (n *nfa) edge(from int, r byteRange, to int) {
	n.states[from].edges = append(n.states[from].edges, nfaEdge{r, to})
}

// slash is a / and then to.
func (n *nfa) slash(to int) int {
	s := n.state()
	n.edge(s, byteRange{'/', '/'}, to)
	return s
}

// name is any number of bytes but /, and then to.
func (n *nfa) name(to int) int {
	s := n.state()
	n.edge(s, byteRange{0, '/' - 1}, s)
	n.edge(s, byteRange{'/' + 1, 0xff}, s)
	n.link(s, to)
	return s
}

// anything is any number of bytes, and then to.
func (n *nfa) anything(to int) int {
	s := n.state()
	n.edge(s, byteRange{0, 0xff}, s)
	n.link(s, to)
	return s
}

// components is any number of times a / and a name, and then to.
func (n *nfa) components(to int) int {
	s := n.slash(n.anything(to))
	n.link(s, to)
	return s
}

// directories is any number of times a name and a /, and then to.
func (n *nfa) directories(to int) int {
	s := n.anything(n.slash(to))
	first := n.state()
	n.link(first, s)
	n.link(first, to)
	return first
}

// chars is one character of a set, and then to.
func (n *nfa) chars(set []runeRange, to int) int {
	s := n.state()
	for _, r := range set {
		utf8Sequences(r, func(sequence []byteRange) {
			at := s
			for i, b := range sequence {
				next := to
				if i < len(sequence)-1 {
					next = n.state()
				}
				n.edge(at, b, next)
				at = next
			}
		})
	}
	return s
}

// place is where in a component the reading of a glob is. A * at the beginning of a component waits for what follows: it
// may be half of a **. A / waits too: the ** behind it may stand for nothing, and then there is no /.
type place int

const (
	atStart    place = iota // of the glob
	atStart1                // and one *
	atStart2                // and **
	atSlash                 // a / waits
	atSlash1                // and one *
	atSlash2                // and **
	afterDirs               // behind **/ at the start: nothing waits
	afterDirs1              // and one *
	afterDirs2              // and **
	inName                  // of a component, nothing waits
)

// readingState is a state of the reading of a glob.
type readingState struct {
	node  int
	place place
}

// globReading makes states of an nfa for a glob.
type globReading struct {
	*nfa
	graph   *globGraph
	verdict verdict
	states  map[readingState]int
	todo    []readingState
}

var errRelative = errors.New("it is relative: it must begin with / or with ** as a whole component, as in **/name")

// addGlob makes states for a glob and gives the first.
func (n *nfa) addGlob(g *globGraph, v verdict) (int, error) {
	r := &globReading{nfa: n, graph: g, verdict: v, states: map[readingState]int{}}
	first := r.at(0, atStart)
	for len(r.todo) > 0 {
		last := len(r.todo) - 1
		s := r.todo[last]
		r.todo = r.todo[:last]
		if err := r.read(s); err != nil {
			return 0, err
		}
	}
	return first, nil
}

// at is the state of a reading.
func (r *globReading) at(node int, p place) int {
	key := readingState{node, p}
	s, ok := r.states[key]
	if !ok {
		s = r.state()
		r.states[key] = s
		r.todo = append(r.todo, key)
	}
	return s
}

// read links a state of the reading with those that follow it.
func (r *globReading) read(s readingState) error {
	if s.node == len(r.graph.edges)-1 {
		return r.end(s)
	}
	from := r.states[s]
	for _, e := range r.graph.edges[s.node] {
		var to int
		var err error
		switch e.kind {
		case tokenNone:
			to = r.at(e.to, s.place)
		case tokenSlash:
			to, err = r.readSlash(s.place, e.to)
		case tokenStar:
			to, err = r.readStar(s.place, e.to)
		case tokenChars:
			to, err = r.flush(s.place, r.chars(e.chars, r.at(e.to, inName)))
		}
		if err != nil {
			return err
		}
		r.link(from, to)
	}
	return nil
}

func (r *globReading) readSlash(p place, node int) (int, error) {
	slash := r.at(node, atSlash)
	switch p {
	case atStart:
		return slash, nil
	case atStart2, afterDirs2:
		return r.directories(r.at(node, afterDirs)), nil
	case atSlash2:
		return r.components(slash), nil
	}
	return r.flush(p, slash)
}

func (r *globReading) readStar(p place, node int) (int, error) {
	switch p {
	case atStart, atStart1, atSlash, atSlash1, afterDirs, afterDirs1:
		return r.at(node, p+1), nil
	}
	return r.flush(p, r.name(r.at(node, inName)))
}

// flush is what waits, taken for what it is now that the component goes on, and then to.
func (r *globReading) flush(p place, to int) (int, error) {
	switch p {
	case atStart, atStart1, atStart2:
		return 0, errRelative
	case atSlash:
		return r.slash(to), nil
	case atSlash1, atSlash2:
		return r.slash(r.name(to)), nil
	case afterDirs1, afterDirs2:
		return r.name(to), nil
	}
	return to, nil
}

// end is what waits at the end of the glob.
func (r *globReading) end(s readingState) error {
	to := r.accept(r.verdict)
	var err error
	switch s.place {
	case atStart2, afterDirs2:
		to = r.anything(to)
	case atSlash2:
		to = r.components(to)
	default:
		to, err = r.flush(s.place, to)
	}
	r.link(r.states[s], to)
	return err
}
