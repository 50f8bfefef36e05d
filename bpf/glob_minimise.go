package bpf

// partition is a set of states cut into blocks, which may be cut further.
type partition struct {
	states []int // grouped by block
	place  []int // by state: where it is in states
	block  []int // by state
	first  []int // by block: where it begins in states
	past   []int // by block: where it ends
	marked []int // by block: how many of its states, at its beginning, are marked
}

func newPartition(states int) *partition {
	p := &partition{first: []int{0}, past: []int{states}, marked: []int{0}, block: make([]int, states)}
	for s := range states {
		p.states = append(p.states, s)
		p.place = append(p.place, s)
	}
	return p
}

// mark moves a state, once, to the marked ones of its block, and says whether it is the first of them.
func (p *partition) mark(state int) bool {
	b := p.block[state]
	at, to := p.place[state], p.first[b]+p.marked[b]
	if at < to {
		return false
	}
	other := p.states[to]
	p.states[to], p.states[at] = state, other
	p.place[state], p.place[other] = to, at
	p.marked[b]++
	return p.marked[b] == 1
}

// split makes a block of the marked states, if they are not all of theirs; it gives the new block, the last one, or -1.
func (p *partition) split(b int) int {
	middle := p.first[b] + p.marked[b]
	p.marked[b] = 0
	if middle == p.past[b] {
		return -1
	}
	made := len(p.first)
	p.first, p.past, p.marked = append(p.first, p.first[b]), append(p.past, middle), append(p.marked, 0)
	p.first[b] = middle
	for _, s := range p.members(made) {
		p.block[s] = made
	}
	return made
}

func (p *partition) members(b int) []int { return p.states[p.first[b]:p.past[b]] }

// predecessors are the states that lead to a state by a class.
type predecessors struct {
	begin  []int // by class * states + state; one more at the end
	states []int
}

func (d *dfa) predecessors() predecessors {
	n := len(d.accepts)
	p := predecessors{begin: make([]int, d.classes*n+1), states: make([]int, len(d.next))}
	for at, to := range d.next {
		p.begin[at%d.classes*n+to+1]++
	}
	for i := range d.classes * n {
		p.begin[i+1] += p.begin[i]
	}
	used := make([]int, d.classes*n)
	for at, to := range d.next {
		key := at%d.classes*n + to
		p.states[p.begin[key]+used[key]] = at / d.classes
		used[key]++
	}
	return p
}

func (p predecessors) of(state, class, states int) []int {
	key := class*states + state
	return p.states[p.begin[key]:p.begin[key+1]]
}

// minimise makes one state of all that accept the same, by Hopcroft's algorithm, and orders them by their distance.
func (d *dfa) minimise() {
	p := newPartition(len(d.accepts))
	for s, accepts := range d.accepts {
		if accepts {
			p.mark(s)
		}
	}
	p.split(0)
	d.refine(p)
	d.collapse(p)
	d.mergeClasses()
}

// refine cuts blocks until the states of each lead to the same blocks.
func (d *dfa) refine(p *partition) {
	before, n := d.predecessors(), len(d.accepts)
	todo, waits := []int{}, map[int]bool{}
	push := func(b int) {
		todo = append(todo, b)
		waits[b] = true
	}
	for b := range p.first {
		push(b)
	}
	for len(todo) > 0 {
		b := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		delete(waits, b)
		splitter := append([]int(nil), p.members(b)...)
		for class := range d.classes {
			var touched []int
			for _, s := range splitter {
				for _, from := range before.of(s, class, n) {
					if p.mark(from) {
						touched = append(touched, p.block[from])
					}
				}
			}
			for _, t := range touched {
				made := p.split(t)
				switch {
				case made < 0:
				case waits[t] || len(p.members(made)) <= len(p.members(t)):
					push(made)
				default:
					push(t)
				}
			}
		}
	}
}

// collapse makes a state of each block that is reached. The dead one stays 0.
func (d *dfa) collapse(p *partition) {
	small := &dfa{classOf: d.classOf, classes: d.classes}
	number := map[int]int{}
	var order []int
	reach := func(state int) int {
		b := p.block[state]
		if _, ok := number[b]; !ok {
			number[b] = small.state(d.accepts[state])
			order = append(order, state)
		}
		return number[b]
	}
	reach(0)
	small.start = reach(d.start)
	for i := 0; i < len(order); i++ {
		for class, to := range d.row(order[i]) {
			next := reach(to)
			small.row(i)[class] = next
		}
	}
	*d = *small
}
