package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// defaultModules are loaded where the kernel has them as modules; what it has built in or lacks is
// passed over. It is what faults need (traffic control, virtual links) and what tests build their
// surroundings from.
var defaultModules = []string{
	"sch_ingress", "sch_netem", "sch_tbf", "sch_prio", "sch_fq", "sch_fq_codel", "sch_htb",
	"cls_bpf", "cls_u32", "cls_matchall", "cls_flower", "cls_cgroup",
	"act_bpf", "act_gact", "act_mirred", "act_police", "act_skbedit",
	"veth", "dummy", "bridge", "ifb", "macvlan", "8021q", "tun", "ip_gre",
	"tcp_diag", "udp_diag", "sctp", "nf_tables",
	"fuse", "overlay", "ext4", "loop", "null_blk",
}

// A moduleIndex knows a kernel's loadable modules.
type moduleIndex struct {
	root    string              // the directory that paths are relative to
	paths   map[string]string   // module name -> path
	needs   map[string][]string // path -> paths it needs, direct or not, in no useful order
	builtin map[string]bool     // names of what is no module but there; nil if all is built in
}

// readModules reads modules.dep and modules.builtin of a kernel's module directory. An empty dir
// stands for a kernel with everything built in: an index without modules.
func readModules(dir string) (*moduleIndex, error) {
	idx := &moduleIndex{root: dir, paths: map[string]string{}, needs: map[string][]string{}}
	if dir == "" {
		return idx, nil
	}
	deps, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	for line := range strings.Lines(string(deps)) {
		path, needs, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		idx.paths[moduleName(path)] = path
		idx.needs[path] = strings.Fields(needs)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	idx.builtin = map[string]bool{}
	for _, path := range strings.Fields(string(builtin)) {
		idx.builtin[moduleName(path)] = true
	}
	return idx, nil
}

// moduleName is the name the kernel gives to a module file: dashes and underscores are the same.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// closure returns the paths of the named modules and of all that they need, in an order in which
// they can be loaded. Names that are built in add nothing, unknown ones are returned as missing.
func (x *moduleIndex) closure(names []string) (paths, missing []string) {
	seen := map[string]bool{}
	var visit func(path string)
	visit = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		for _, need := range x.needs[path] {
			visit(need)
		}
		paths = append(paths, path)
	}
	for _, name := range names {
		name = moduleName(name)
		path, ok := x.paths[name]
		switch {
		case ok:
			visit(path)
		case x.builtin != nil && !x.builtin[name] && !slices.Contains(missing, name):
			missing = append(missing, name)
		}
	}
	return paths, missing
}
