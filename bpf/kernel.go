// Package bpf is the kernel side of faultd and the only door to it: programs, maps, the kill switch and the lease.
package bpf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

// Options say how the kernel side is opened.
type Options struct {
	// PinDir is where the kill switch is pinned.
	PinDir string
	// DisableMechanisms switches mechanisms off by name, so that tests reach the others.
	DisableMechanisms []string
}

// Kernel holds the shared maps, the rules in them and the programs that the rules need. While there is no rule,
// no program is loaded. It may be used by several goroutines.
type Kernel struct {
	maps     map[string]*ebpf.Map
	disabled map[string]bool
	pinDir   string
	sw       *Switch
	lease    page
	stats    page
	sleepers page

	mu     sync.Mutex
	serial uint32
	slots  [maxRules]*Installed
	next   int
	hooks  map[Hook]*hookState
	shared map[string]*attachment
	// clsacts counts our filters on clsact qdiscs that are ours, by network namespace and device.
	clsacts map[[2]uint64]int
	// lsmFired: security hooks were seen to run programs.
	lsmFired bool
	// noTrampolines: a program on a call's function was refused.
	noTrampolines bool
	// noTwins: a mechanism's program on a function of 32-bit programs was refused.
	noTwins map[SyscallMechanism]bool
	// sites are where files make calls, for MechanismUprobe.
	sites *siteCache
	// types are the kernel's, read for the first program that needs them; reading takes longer than all the rest.
	types *btf.Cache
	// objects were read before: copying is quicker, and a fault may take one for each of a dozen hooks.
	objects map[string]*ebpf.CollectionSpec
}

// abiVersion is FAULTD_ABI of faultd.h, which the types and sizes here follow.
const abiVersion = 6

// Open makes the maps and pins the kill switch, which stays as it was or, if it is new, is killed; Switch().Arm() arms it.
// The caller closes the kernel.
func Open(o Options) (*Kernel, error) {
	// Before 5.11 maps count against RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the memory lock limit: %w", err)
	}
	spec, err := loadShared()
	if err != nil {
		return nil, fmt.Errorf("read the shared maps: %w", err)
	}
	sw, err := createSwitch(o.PinDir)
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		maps:     map[string]*ebpf.Map{"faultd_kill": sw.kill},
		disabled: map[string]bool{},
		pinDir:   o.PinDir,
		sw:       sw,
		hooks:    map[Hook]*hookState{},
		shared:   map[string]*attachment{},
		noTwins:  map[SyscallMechanism]bool{},
		clsacts:  map[[2]uint64]int{},
		sites:    &siteCache{},
		types:    btf.NewCache(),
		objects:  map[string]*ebpf.CollectionSpec{},
	}
	for _, name := range o.DisableMechanisms {
		k.disabled[name] = true
	}
	if err := k.makeMaps(spec); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *Kernel) makeMaps(spec *ebpf.CollectionSpec) error {
	for name, m := range spec.Maps {
		if k.maps[name] != nil || m.Type == ebpf.Array && name[0] == '.' {
			continue
		}
		made, err := ebpf.NewMap(m)
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, exhausting(err, loadNeeds(spec)))
		}
		k.maps[name] = made
	}
	var err error
	if k.lease, err = mapPage(k.maps["faultd_lease"]); err != nil {
		return err
	}
	if k.stats, err = mapPage(k.maps["faultd_stats"]); err != nil {
		return err
	}
	k.sleepers, err = mapPage(k.maps["faultd_sleepers"])
	return err
}

// Switch is the kill switch.
func (k *Kernel) Switch() *Switch { return k.sw }

// Map gives a shared map by its name in C, for the guard. It stays the kernel's.
func (k *Kernel) Map(name string) *ebpf.Map { return k.maps[name] }

// RenewLease lets rules do harm for so long from now; 0 or less ends the lease.
func (k *Kernel) RenewLease(d time.Duration) {
	k.lease.word(0).Store(leaseUntil(Monotonic(), d))
}

// LeaseOver says whether the lease has lapsed.
func (k *Kernel) LeaseOver() bool { return uint64(Monotonic()) >= k.lease.word(0).Load() }

// KeepLease renews a lease that still runs, and says whether it had lapsed instead, if only until it was renewed. A process that was
// stopped between reading the clock and storing cannot bring a lapsed lease back: it stores a time that is over.
func (k *Kernel) KeepLease(d time.Duration) (lapsed bool) {
	now := Monotonic()
	until := k.lease.word(0).Load()
	if uint64(now) >= until {
		return true
	}
	k.lease.word(0).CompareAndSwap(until, leaseUntil(now, d))
	return uint64(Monotonic()) >= until
}

func leaseUntil(now int64, d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64(now + int64(d))
}

// Close ends all rules and gives everything back; the pinned switch stays.
func (k *Kernel) Close() error {
	k.mu.Lock()
	installed := k.slots
	k.mu.Unlock()
	var errs []error
	for _, r := range installed {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	errs = append(errs, k.lease.close(), k.stats.close(), k.sleepers.close(), k.sw.Close())
	for name, m := range k.maps {
		if name != "faultd_kill" {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// object gives a copy of an object, by its name, with these of its programs, or with all if none is named. Call with k.mu held.
func (k *Kernel) object(name string, load func() (*ebpf.CollectionSpec, error), programs ...string) (*ebpf.CollectionSpec, error) {
	if k.objects[name] == nil {
		spec, err := load()
		if err != nil {
			return nil, fmt.Errorf("read object %s: %w", name, err)
		}
		k.objects[name] = spec
	}
	wanted := *k.objects[name]
	if len(programs) > 0 {
		wanted.Programs = map[string]*ebpf.ProgramSpec{}
		for _, program := range programs {
			wanted.Programs[program] = k.objects[name].Programs[program]
		}
	}
	return wanted.Copy(), nil
}

// load loads an object's programs on the shared maps; the spec is used up.
func (k *Kernel) load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	return k.loadWith(spec, nil)
}

// loadWith is load with other maps, by their names, that are there already.
func (k *Kernel) loadWith(spec *ebpf.CollectionSpec, more map[string]*ebpf.Map) (*ebpf.Collection, error) {
	if err := checkABI(spec); err != nil {
		return nil, err
	}
	onlyUsedMaps(spec)
	replacements := map[string]*ebpf.Map{}
	maps.Copy(replacements, more)
	for name := range spec.Maps {
		if m := k.maps[name]; m != nil {
			replacements[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements, Cache: k.types})
	if err != nil {
		return nil, loadError{exhausting(err, loadNeeds(spec))}
	}
	return c, nil
}

// onlyUsedMaps leaves out the maps that no program of a spec uses, as each loaded one takes a file; those with variables stay.
func onlyUsedMaps(spec *ebpf.CollectionSpec) {
	used := map[string]bool{}
	for _, p := range spec.Programs {
		for _, in := range p.Instructions {
			used[in.Reference()] = true
		}
	}
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return !used[name] && !strings.HasPrefix(name, ".") })
}

// loadError is the library's error without its advice, as the lock limit was lifted and is not the reason, and without how much of
// the verifier's log it leaves out.
type loadError struct{ error }

// Error implements error.
func (e loadError) Error() string {
	text := strings.ReplaceAll(e.error.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
	if strings.HasSuffix(text, " line(s) omitted)") {
		text = text[:strings.LastIndex(text, " (")]
	}
	return text
}

// Unwrap gives the library's.
func (e loadError) Unwrap() error { return e.error }

// checkABI refuses an object that was built for other structs than the ones here.
func checkABI(spec *ebpf.CollectionSpec) error {
	v := spec.Variables["faultd_abi"]
	if v == nil {
		return errors.New("read the object: it has no version; run make generate")
	}
	var version uint32
	if err := v.Get(&version); err != nil {
		return fmt.Errorf("read the object's version: %w", err)
	}
	if version != abiVersion {
		return fmt.Errorf("read the object: it has version %d of the ABI, this build has %d; run make generate", version, abiVersion)
	}
	return nil
}

// attachment is something in the kernel that several rules use; the last one to leave closes it.
type attachment struct {
	users  int
	closer io.Closer
}

// acquire opens an attachment by key, or shares the open one. release must be called, and again if it failed. Call both
// with k.mu held.
func (k *Kernel) acquire(key string, open func() (io.Closer, error)) (release func() error, err error) {
	a := k.shared[key]
	if a == nil {
		closer, err := open()
		if err != nil {
			return nil, err
		}
		a = &attachment{closer: closer}
		k.shared[key] = a
	}
	a.users++
	left := false
	return func() error {
		if !left {
			left = true
			a.users--
		}
		if a.users > 0 {
			return nil
		}
		if k.shared[key] == a {
			delete(k.shared, key)
		}
		return a.closer.Close()
	}, nil
}

// closers closes in reverse order. Closed again, it closes those that failed.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		if c[i] == nil {
			continue
		}
		err := c[i].Close()
		if err == nil {
			c[i] = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
