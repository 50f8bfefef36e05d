package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Bounds of the work that the globs of one rule may cause; what they stop would hardly fit the table.
const (
	maxGlobStates = 1 << 14
	maxGlobWork   = 1 << 24
)

// dfa is a deterministic automaton over classes of bytes. State 0 is the dead one: nothing is accepted from there.
type dfa struct {
	classOf [256]int
	classes int
	next    []int // by state * classes + class
	accepts []bool
	start   int
}

func (d *dfa) row(state int) []int {
	return d.next[state*d.classes : (state+1)*d.classes]
}

func (d *dfa) state(accepts bool) int {
	d.accepts = append(d.accepts, accepts)
	d.next = append(d.next, make([]int, d.classes)...)
	return len(d.accepts) - 1
}

// byteClasses puts bytes that no edge tells apart into one class, and gives the first byte of each.
func (n *nfa) byteClasses() (classOf [256]int, first []byte) {
	var begins [257]bool
	for _, s := range n.states {
		for _, e := range s.edges {
			begins[e.low], begins[int(e.high)+1] = true, true
		}
	}
	for b := range 256 {
		if b == 0 || begins[b] {
			first = append(first, byte(b))
		}
		classOf[b] = len(first) - 1
	}
	return classOf, first
}

// subsets makes a dfa's states from sets of an nfa's.
type subsets struct {
	*nfa
	dfa   *dfa
	known map[string]int
	sets  [][]int // by state
	seen  []int   // by state of the nfa: the last closure that it was part of
	turn  int
	work  int // edges looked at
}

// determinise makes the automaton that is in all the states at once in which the nfa may be.
func (n *nfa) determinise() (*dfa, error) {
	d := &dfa{}
	var first []byte
	d.classOf, first = n.byteClasses()
	d.classes = len(first)
	s := &subsets{nfa: n, dfa: d, known: map[string]int{}, seen: make([]int, len(n.states))}
	s.state(nil)
	d.start = s.state(s.closure([]int{n.start}))
	for state := 0; state < len(s.sets); state++ {
		for class, b := range first {
			next := s.state(s.closure(s.step(s.sets[state], b)))
			d.row(state)[class] = next
		}
		if len(s.sets) > maxGlobStates || s.work > maxGlobWork {
			return nil, tooLarge(fmt.Sprintf("it has %d states before the end", len(s.sets)))
		}
	}
	return d, nil
}

func tooLarge(size string) error {
	return fmt.Errorf("the automaton is too large: %s; each *, ? or [ ] with text behind it in the same component may double it, "+
		"and so may each further glob of that kind; ** as whole components and fixed beginnings cost little", size)
}

// state is the dfa's state for a set.
func (s *subsets) state(set []int) int {
	key := make([]byte, 0, 4*len(set))
	for _, member := range set {
		key = binary.NativeEndian.AppendUint32(key, uint32(member))
	}
	if state, ok := s.known[string(key)]; ok {
		return state
	}
	var found verdict
	for _, member := range set {
		found |= s.states[member].verdict
	}
	state := s.dfa.state(found == included)
	s.known[string(key)] = state
	s.sets = append(s.sets, set)
	return state
}

func (s *subsets) step(set []int, b byte) (next []int) {
	for _, member := range set {
		s.work += 1 + len(s.states[member].edges)
		for _, e := range s.states[member].edges {
			if e.low <= b && b <= e.high {
				next = append(next, e.to)
			}
		}
	}
	return next
}

// closure is all that is reached without a byte, sorted, without the states that only lead on.
func (s *subsets) closure(todo []int) (set []int) {
	s.turn++
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.seen[at] == s.turn {
			continue
		}
		s.seen[at] = s.turn
		if len(s.states[at].edges) > 0 || s.states[at].verdict != 0 {
			set = append(set, at)
		}
		todo = append(todo, s.states[at].empty...)
	}
	slices.Sort(set)
	return set
}

// mergeClasses puts bytes that no state tells apart into one class.
func (d *dfa) mergeClasses() {
	known := map[string]int{}
	var kept []int
	merged := make([]int, d.classes)
	for class := range d.classes {
		var column []byte
		for state := range d.accepts {
			column = binary.NativeEndian.AppendUint32(column, uint32(d.row(state)[class]))
		}
		if _, ok := known[string(column)]; !ok {
			known[string(column)] = len(kept)
			kept = append(kept, class)
		}
		merged[class] = known[string(column)]
	}
	next := make([]int, 0, len(d.accepts)*len(kept))
	for state := range d.accepts {
		for _, class := range kept {
			next = append(next, d.row(state)[class])
		}
	}
	d.next, d.classes = next, len(kept)
	for b := range d.classOf {
		d.classOf[b] = merged[d.classOf[b]]
	}
}

// table writes the automaton in the kernel's form.
func (d *dfa) table() (*GlobTable, error) {
	width := d.classes + 1
	if size := len(d.accepts) * width; size > globEntries {
		return nil, tooLarge(fmt.Sprintf("%d states of %d entries are %d, at most %d are possible", len(d.accepts), width, size, globEntries))
	}
	t := &GlobTable{states: len(d.accepts)}
	name := func(state int) uint16 { return uint16(2 * state * width) }
	t.table.Start = name(d.start)
	for b, class := range d.classOf {
		t.table.ClassOf[b] = uint8(class + 1)
	}
	for state, accepts := range d.accepts {
		row := t.table.Next[state*width:]
		if accepts {
			row[0] = 1
		}
		if accepts && d.loops(state) {
			t.table.All = name(state)
		}
		for class, to := range d.row(state) {
			row[1+class] = name(to)
		}
	}
	return t, nil
}

// loops says whether a state is never left.
func (d *dfa) loops(state int) bool {
	return !slices.ContainsFunc(d.row(state), func(to int) bool { return to != state })
}
