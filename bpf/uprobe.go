package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// inInitialPIDNamespace says whether we see all processes by the numbers that the kernel side has.
func inInitialPIDNamespace() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at our PID namespace: %w", err)
	}
	if st.Ino != initialPIDNamespace {
		return errors.New("it needs the host's PID namespace (hostPID: true)")
	}
	return nil
}

// uprobePoint names a call of a target: attachments are for a target's own files.
func uprobePoint(t Target, call string) string {
	if len(t.Ancestors) == 0 {
		return call + "@"
	}
	return fmt.Sprintf("%s@%d", call, t.id())
}

// precheckUprobe finds what attaching would not.
func precheckUprobe(call string, r Rule) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("only x86-64 programs can be disassembled")
	}
	if err := inInitialPIDNamespace(); err != nil {
		return err
	}
	if r.Action != ActionShort {
		return nil
	}
	switch call {
	case "read", "write", "pread64", "pwrite64", "recvfrom", "sendto":
		return nil // their count is the third argument
	}
	return fmt.Errorf("%s has no count that can be made smaller", call)
}

// openUprobe attaches to the places where the target's processes make a call, in each file that they run code of, and follows
// what they map later: calls that are made between a mapping and the attachment are missed, and counted as that. Without a
// target it only finds out whether the kernel could.
func (k *Kernel) openUprobe(t Target, point string, s *syscallPrograms) error {
	call, _, _ := strings.Cut(point, "@")
	if err := k.decidedOtherwise(MechanismUprobe, call); err != nil {
		return err
	}
	spec, err := k.object("syscallUprobe", loadSyscallUprobe)
	if err != nil {
		return err
	}
	number, _ := SyscallNumber(call)
	if err := spec.Variables["call_number"].Set(uint32(number)); err != nil {
		return fmt.Errorf("set up the programs: %w", err)
	}
	delete(spec.Programs, "faultd_mmap")
	counted := k.hasEntryPoint(call) == nil
	if counted {
		spec.Programs["faultd_arrived"].AttachTo = entryPoint(call)
	} else {
		delete(spec.Programs, "faultd_arrived")
	}
	c, err := k.own(spec, s)
	if err != nil {
		return k.uprobeRefusal(spec, err)
	}
	release, err := k.acquire(mappingsKey, func() (io.Closer, error) { return k.openMapWatch() })
	if err != nil {
		return err
	}
	s.links = append(s.links, closerFunc(release))
	if t.Dir == "" {
		return nil
	}
	s.sites = &callSites{target: t, call: call, number: number, program: c.Programs["faultd_uprobe"], known: k.sites,
		watch: k.shared[mappingsKey].closer.(*mapWatch), files: map[fileID]*probedFile{}}
	s.links = append(s.links, s.sites)
	s.sites.watch.subscribe(s.sites)
	if err := s.sites.follow(0); err != nil || !counted {
		return err
	}
	s.sites.unseen = c.Variables["unseen"]
	return s.trace(c.Programs["faultd_arrived"], entryPoint(call))
}

// uprobeRefusal says why the programs of a uprobe did not load: which of them was the first to fail is chance, and the one that does
// the harm is what matters.
func (k *Kernel) uprobeRefusal(spec *ebpf.CollectionSpec, err error) error {
	if spec.Programs["faultd_arrived"] != nil {
		delete(spec.Programs, "faultd_arrived")
		harm, why := k.load(spec)
		if why == nil {
			harm.Close()
			return fmt.Errorf("what comes before a uprobe must be counted: %w", err)
		}
		err = fmt.Errorf("load the programs: %w", why)
	}
	return fmt.Errorf("uprobes must be able to write registers: %w", err)
}

// mappingsKey is that of the shared attachment which tells of mappings.
const mappingsKey = "syscall/mappings"

// sitesOf are the attachments of calls of a target. Call with k.mu held.
func (k *Kernel) sitesOf(t Target, calls []string) (sites []*callSites) {
	for _, key := range attachKeys(t, MechanismUprobe, calls) {
		if a := k.shared[key]; a != nil && a.closer.(*syscallPrograms).sites != nil {
			sites = append(sites, a.closer.(*syscallPrograms).sites)
		}
	}
	return sites
}

// followMappings looks for code of the target that was mapped since it was looked at. Call with k.mu held.
func (k *Kernel) followMappings(t Target, m SyscallMechanism, calls []string) error {
	if m != MechanismUprobe {
		return nil
	}
	for _, s := range k.sitesOf(t, calls) {
		if err := s.follow(0); err != nil {
			return err
		}
	}
	return nil
}

// hidden says what of the target is out of reach. Call with k.mu held.
func (k *Kernel) hidden(t Target, parts []part) (notes []string) {
	for _, p := range parts {
		if p.mechanism != MechanismUprobe {
			continue
		}
		for _, s := range k.sitesOf(t, p.calls) {
			for _, note := range s.notes() {
				notes = append(notes, s.call+" in "+note)
			}
		}
	}
	return notes
}

// callSites is a call of one target, in all files that make it.
type callSites struct {
	target  Target
	call    string
	number  int
	program *ebpf.Program
	known   *siteCache
	watch   *mapWatch
	unseen  *ebpf.Variable // calls of targets that came from elsewhere; nil: they cannot be counted

	mu     sync.Mutex
	files  map[fileID]*probedFile
	closed bool
}

// probedFile is a file that was looked at.
type probedFile struct {
	name string
	link link.Link // nil: it makes no such call, or cannot be attached to
	note string    // what is out of reach in it
}

// follow attaches to the files of a process of the target, or of all with 0, that are not attached to yet.
func (s *callSites) follow(pid int) error {
	pids, err := processesIn(s.target.Dir)
	if err != nil {
		return err
	}
	if pid != 0 {
		if !slices.Contains(pids, pid) {
			return nil
		}
		pids = []int{pid}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, pid := range pids {
		files, err := codeFiles(pid)
		if err != nil {
			return fmt.Errorf("list the code of process %d: %w", pid, err)
		}
		for _, file := range files {
			if s.files[file.id] == nil {
				s.files[file.id] = s.probe(file)
			}
		}
	}
	return nil
}

// probe attaches to a file; what it cannot do becomes a note.
func (s *callSites) probe(file codeFile) *probedFile {
	p := &probedFile{name: file.name}
	f, err := os.Open(file.path)
	if err != nil {
		p.note = err.Error()
		return p
	}
	defer f.Close()
	sites, err := s.known.of(f)
	if err != nil {
		p.note = err.Error()
		return p
	}
	if hidden := sites.HiddenOf(s.number); hidden > 0 {
		p.note = fmt.Sprintf("places that make the call and cannot be reached: %d", hidden)
	}
	var o link.UprobeMultiOptions
	for _, site := range sites.Of(s.number) {
		o.Addresses = append(o.Addresses, site.Offset)
		o.Cookies = append(o.Cookies, site.cookie())
	}
	if len(o.Addresses) == 0 {
		return p
	}
	if p.link, err = attachSites(f, s.program, o); err != nil {
		p.note = err.Error()
	}
	return p
}

func attachSites(f *os.File, program *ebpf.Program, o link.UprobeMultiOptions) (link.Link, error) {
	executable, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open as a program: %w", err)
	}
	l, err := executable.UprobeMulti(nil, program, &o)
	if err != nil {
		return nil, fmt.Errorf("attach to %d places: %w", len(o.Addresses), err)
	}
	return l, nil
}

// missed counts the calls that did not come through a program.
func (s *callSites) missed() (n uint64) {
	if s == nil || s.unseen == nil || s.unseen.Get(&n) != nil {
		return 0
	}
	return n
}

// notes are what is out of reach, by file.
func (s *callSites) notes() (notes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.files {
		if file.note != "" {
			notes = append(notes, strings.TrimSuffix(file.name, " (deleted)")+": "+file.note)
		}
	}
	slices.Sort(notes)
	return notes
}

// Close detaches from all files.
func (s *callSites) Close() error {
	s.watch.unsubscribe(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for id, file := range s.files {
		if file.link != nil {
			if err := file.link.Close(); err != nil {
				errs = append(errs, fmt.Errorf("detach from %s: %w", file.name, err))
				continue
			}
		}
		delete(s.files, id)
	}
	return errors.Join(errs...)
}
