package bpf

import "fmt"

// CallFilter says which of the target's calls are meant. The zero value means all; everything that is given must fit.
type CallFilter struct {
	// Comm is the name of the calling thread, at most MaxComm bytes.
	Comm string
	// UID is the effective user of the caller, as the initial user namespace numbers it.
	UID *uint32
	// FDs are the descriptors that are meant, both ends included.
	FDs *FDs
	// FDTypes is what the descriptor must be; 0: anything.
	FDTypes FDTypes
	// Predicates are conditions on the arguments.
	Predicates []Predicate
	// Executables are globs of which one must fit the program's path, as the target sees it.
	Executables []string
	// Paths are globs of which one must fit the path of the file that the call is about; none of Except may.
	Paths, Except []string
}

// FDs is a range of descriptors.
type FDs struct{ Low, High uint32 }

// FDTypes is a set of kinds of descriptors (enum fd_type).
type FDTypes uint32

// The kinds.
const (
	FDFile   FDTypes = 1 // regular files and directories
	FDSocket FDTypes = 2
	FDPipe   FDTypes = 4
	FDTTY    FDTypes = 8
	FDOther  FDTypes = 16
)

// Comparison is how an argument is compared (enum predicate_op).
type Comparison uint32

// The comparisons, of unsigned numbers.
const (
	Equal        Comparison = 1
	NotEqual     Comparison = 2
	Less         Comparison = 3
	LessEqual    Comparison = 4
	Greater      Comparison = 5
	GreaterEqual Comparison = 6
	AnyBit       Comparison = 7
	NoBit        Comparison = 8
)

// Predicate is a condition on argument number Argument (0..5) of a call.
type Predicate struct {
	Argument   int
	Comparison Comparison
	Value      uint64
	// Mask is what of the argument counts: all bits, or the low 32 of an int.
	Mask uint64
}

// Flags of a filter (enum filter_flag).
const (
	filterComm       = 1
	filterUID        = 2
	filterFD         = 4
	filterFDType     = 8
	filterExecutable = 16
	filterPath       = 32
)

func (f CallFilter) encode() (e sharedFilter) {
	if f.Comm != "" {
		e.Flags |= filterComm
		for i, b := range []byte(f.Comm[:min(len(f.Comm), MaxComm)]) {
			e.Comm[i] = int8(b)
		}
	}
	if f.UID != nil {
		e.Flags |= filterUID
		e.Uid = *f.UID
	}
	if f.FDs != nil {
		e.Flags |= filterFD
		e.FdLow, e.FdHigh = f.FDs.Low, f.FDs.High
	}
	if f.FDTypes != 0 {
		e.Flags |= filterFDType
		e.FdTypes = uint32(f.FDTypes)
	}
	if len(f.Executables) > 0 {
		e.Flags |= filterExecutable
	}
	if len(f.Paths)+len(f.Except) > 0 {
		e.Flags |= filterPath
	}
	e.Predicates = uint32(len(f.Predicates))
	for i, p := range f.Predicates {
		e.Predicate[i] = sharedPredicate{Value: p.Value, Mask: p.Mask, Argument: uint32(p.Argument), Op: uint32(p.Comparison)}
	}
	return e
}

// Check refuses globs that cannot be compiled.
func (f CallFilter) Check() error {
	_, err := f.compile()
	return err
}

// compile makes the tables of the filter's globs.
func (f CallFilter) compile() (map[globUse]*GlobTable, error) {
	tables := map[globUse]*GlobTable{}
	var err error
	if len(f.Paths)+len(f.Except) > 0 {
		if tables[globPath], err = CompileGlobs(f.Paths, f.Except); err != nil {
			return nil, fmt.Errorf("paths: %w", err)
		}
	}
	if len(f.Executables) > 0 {
		if tables[globExecutable], err = CompileGlobs(f.Executables, nil); err != nil {
			return nil, fmt.Errorf("executables: %w", err)
		}
	}
	return tables, nil
}
