package bpf

// pathPlace is where in a path an automaton of all paths is.
type pathPlace int

const (
	pathStart  pathPlace = iota
	pathRoot             // behind the first /
	pathSlash            // behind another /
	pathDot              // the component is . so far
	pathDotDot           // the component is .. so far
	pathName             // the component is a name
	pathNever            // no path begins like that
)

// pathStep moves by a byte; any stands for all bytes but / and the dot.
func pathStep(p pathPlace, b byte) pathPlace {
	switch {
	case b == '/' && p == pathStart:
		return pathRoot
	case b == '/' && p == pathName:
		return pathSlash
	case b == '/' || p == pathStart || p == pathNever:
		return pathNever
	case b == '.' && (p == pathRoot || p == pathSlash):
		return pathDot
	case b == '.' && p == pathDot:
		return pathDotDot
	}
	return pathName
}

// fitsAPath says whether there is a path, as the kernel gives them, that leads from a state to a verdict.
func (n *nfa) fitsAPath(start int) bool {
	type at struct {
		state int
		place pathPlace
	}
	seen := map[at]bool{{start, pathStart}: true}
	todo := []at{{start, pathStart}}
	visit := func(a at) {
		if a.place != pathNever && !seen[a] {
			seen[a] = true
			todo = append(todo, a)
		}
	}
	for len(todo) > 0 {
		a := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := n.states[a.state]
		if s.verdict != 0 && (a.place == pathRoot || a.place == pathName) {
			return true
		}
		for _, to := range s.empty {
			visit(at{to, a.place})
		}
		for _, e := range s.edges {
			for _, b := range e.representatives() {
				visit(at{e.to, pathStep(a.place, b)})
			}
		}
	}
	return false
}

// representatives are a / and a dot, if they are in the range, and one of its other bytes.
func (r byteRange) representatives() (bytes []byte) {
	others := 0
	for b := max(1, int(r.low)); b <= int(r.high); b++ {
		if b == '/' || b == '.' {
			bytes = append(bytes, byte(b))
			continue
		}
		if others++; others == 1 {
			bytes = append(bytes, byte(b))
		}
	}
	return bytes
}
