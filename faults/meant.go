package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"faultd/bpf"
	"faultd/cgroup"
)

// addresses are those of names, by their texts.
type addresses map[string][]netip.Addr

// with gives the prefixes of peers, those of their names among them.
func (a addresses) with(p peers) []netip.Prefix {
	prefixes := slices.Clone(p.prefixes)
	for _, name := range p.names {
		for _, address := range a[name.text] {
			prefixes = append(prefixes, netip.PrefixFrom(address, address.BitLen()))
		}
	}
	return prefixes
}

// meant is whom traffic means, as it is now: with what names mean, without what is spared.
type meant struct {
	traffic bpf.Traffic
	// spared are notes on what is.
	spared []string
	env    Env
	target cgroup.Target
	kind   string
	asked  Traffic
	named  addresses
	// found is what was to be spared at any time: a namespace that the target has left may have it again.
	found []excluded
	// cover has the fault hurt what leaves by devices, and from network namespaces, that have come since; nil: there is nothing to do for that.
	cover func([]home) error
}

// meant finds out whom traffic of the target means; k is the traffic as the rule has it, without the addresses of names. What does
// not fit the target is a *ParameterError of the kind.
func (t Traffic) meant(ctx context.Context, env Env, target cgroup.Target, kind string, k bpf.Traffic) (*meant, error) {
	m := &meant{traffic: k, env: env, target: target, kind: kind, asked: t, named: addresses{}}
	homes, err := homesOf(env, target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	if err := t.speaks(homes); err != nil {
		return nil, &ParameterError{kind + "." + fieldOf(err), problemOf(err)}
	}
	failed := m.resolve(ctx, homes)
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		err := failed[name]
		if errors.Is(err, errShared) {
			return nil, &ParameterError{kind + "." + t.fieldOf(name), fmt.Sprintf("%q: %v", name, err)}
		}
		if !t.WaitForNames {
			return nil, &ParameterError{kind + "." + t.fieldOf(name), fmt.Sprintf("%q: %v; wait for it with traffic.waitForNames (--wait-for-names), or give its address", name, err)}
		}
	}
	if err := m.lookAround(homes); err != nil {
		return nil, err
	}
	if m.traffic, m.spared, err = m.decide(homes); err != nil {
		return nil, &ParameterError{kind + "." + fieldOf(err), problemOf(err)}
	}
	return m, nil
}

// fieldOf says where a name was given.
func (t Traffic) fieldOf(name string) string {
	if slices.Contains(t.Peers, name) {
		return "peers"
	}
	return "traffic.except"
}

// fieldOf and problemOf take the errors of parameters apart, which begin with the field.
func fieldOf(err error) string {
	field, _, _ := strings.Cut(err.Error(), ": ")
	return field
}

func problemOf(err error) string {
	_, problem, _ := strings.Cut(err.Error(), ": ")
	return problem
}

// lookAround finds what is to be spared now.
func (m *meant) lookAround(homes []home) error {
	found, err := exclusions(m.env, homes)
	if err != nil {
		return err
	}
	for _, e := range found {
		if m.kind == "http" && e.name == excludeDNS { // requests never go to its port
			continue
		}
		if !slices.Contains(m.found, e) {
			m.found = append(m.found, e)
		}
	}
	return nil
}

// decide gives the traffic with the addresses that the names have now, but for what is spared, and notes on that. An error is one of a
// parameter.
func (m *meant) decide(homes []home) (bpf.Traffic, []string, error) {
	k := m.traffic
	var err error
	if k.Peers, err = m.asked.peers(m.named); err != nil {
		return k, nil, err
	}
	if m.asked.peerless {
		return k, nil, nil
	}
	notes, err := m.asked.spare(&k, m.found)
	if err == nil && m.kind != "connect" && m.kind != "http" { // sessions of SSH come in
		var ssh []string
		ssh, err = m.asked.spareSSH(&k)
		notes = append(ssh, notes...)
	}
	if len(homes) == 0 {
		notes = append(notes, "not known, and not spared: gateway and DNS server of the target, as it has no process")
	}
	return k, notes, err
}

// resolve brings the addresses of all names up to date, all at once, and gives those that have none. Where the target has no
// process, host names are resolved as faultd itself does.
func (m *meant) resolve(ctx context.Context, homes []home) map[string]error {
	names := m.asked.names()
	if len(names) == 0 {
		return nil
	}
	failed := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			found, err := m.addressesOf(ctx, homes, name)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[name.text] = err
				return
			}
			m.named[name.text] = found
		})
	}
	wg.Wait()
	return failed
}

func (m *meant) addressesOf(ctx context.Context, homes []home, name peerName) ([]netip.Addr, error) {
	if name.selector != (cgroup.Selector{}) {
		return m.addressesOfTarget(ctx, homes, name.selector)
	}
	if len(homes) > 0 {
		return homes[0].lookup(ctx, name.text)
	}
	own, err := ownHome()
	if err != nil {
		return nil, err
	}
	defer closeHomes([]home{own})
	return own.lookup(ctx, name.text)
}

// errShared says that waiting will not help.
var errShared = errors.New("it shares the network namespace of the target, so that no address tells them apart")

// addressesOfTarget are those of the network namespaces of another target.
func (m *meant) addressesOfTarget(ctx context.Context, homes []home, selector cgroup.Selector) ([]netip.Addr, error) {
	other, err := m.env.Cgroups.Resolve(ctx, selector)
	if err != nil {
		return nil, err
	}
	others, err := homesOf(m.env, other)
	if err != nil {
		return nil, err
	}
	defer closeHomes(others)
	var found []netip.Addr
	for _, h := range others {
		if slices.ContainsFunc(homes, func(own home) bool { return own.ns.Inode == h.ns.Inode }) {
			return nil, errShared
		}
		addresses, err := h.ns.Addresses()
		if err != nil {
			return nil, err
		}
		found = append(found, addresses...)
	}
	if len(found) == 0 {
		return nil, errNoAddress
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found), nil
}

// notes say what is spared, and what names mean now.
func (m *meant) notes() []string {
	notes := slices.Clone(m.spared)
	for _, name := range m.asked.names() {
		notes = append(notes, describe(name.text, m.named[name.text]))
	}
	return notes
}

func describe(name string, found []netip.Addr) string {
	if len(found) == 0 {
		return name + " has no address yet: it is waited for"
	}
	return name + " is " + join(found)
}

func join(found []netip.Addr) string {
	texts := make([]string, len(found))
	for i, address := range found {
		texts[i] = address.String()
	}
	return strings.Join(texts, ", ")
}

// follow makes the handle follow what the names mean, what is to be spared, and where the target lives.
func (m *meant) follow(ctx context.Context, h *ruleHandle) Handle {
	f := &followingHandle{ruleHandle: h, meant: m, own: slices.Clone(h.notes), done: make(chan struct{}), lost: map[string]bool{}}
	h.notes = append(h.notes, m.notes()...)
	// As long as the fault, not as long as the call.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	go f.run(following)
	return f
}

// followingHandle keeps the peers of a rule, and where it hurts, up to date.
type followingHandle struct {
	*ruleHandle
	meant *meant
	own   []string // notes that are not about whom the traffic means
	stop  context.CancelFunc
	done  chan struct{}
	// lost are names that had addresses and have none now; their last ones stay. refused is why the peers stayed as they were. Only run uses them.
	lost    map[string]bool
	refused string

	mu      sync.Mutex // guards what follows, and the notes
	changes []string
}

func (h *followingHandle) run(ctx context.Context) {
	defer close(h.done)
	followHomes(h.meant.env, h.meant.target, ctx.Done(), func(homes []home) { h.look(ctx, homes) })
}

// look looks at everything again. What is to be spared in a network namespace is spared before anything is hurt there.
func (h *followingHandle) look(ctx context.Context, homes []home) {
	h.lookAtPeers(ctx, homes)
	if h.meant.cover != nil && ctx.Err() == nil {
		_ = h.meant.cover(homes) // what cannot be asked now is asked again
	}
}

// lookAtPeers finds out again whom the traffic means. Whatever fails, the peers stay as they were.
func (h *followingHandle) lookAtPeers(ctx context.Context, homes []home) {
	before := maps.Clone(h.meant.named)
	failed := h.meant.resolve(ctx, homes)
	if ctx.Err() != nil {
		return
	}
	changes := h.compare(before, failed)
	err := h.meant.lookAround(homes)
	var traffic bpf.Traffic
	var spared []string
	if err == nil {
		traffic, spared, err = h.meant.decide(homes)
	}
	for _, note := range spared {
		if err == nil && !slices.Contains(h.meant.spared, note) {
			changes = append(changes, note)
		}
	}
	if len(changes) == 0 && (err == nil || err.Error() == h.refused) {
		return
	}
	if err == nil {
		err = h.installed.(interface{ SetPeers(bpf.Peers) error }).SetPeers(traffic.Peers)
	}
	h.refused = ""
	if err != nil {
		h.meant.named, h.refused = before, err.Error()
		changes = []string{"not followed: " + strings.Join(append(changes, err.Error()), "; ")}
	} else {
		h.meant.spared = spared
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, changes...)
	h.notes = slices.Concat(h.own, h.meant.notes())
	for _, change := range changes {
		if !slices.Contains(h.notes, change) {
			h.notes = append(h.notes, change)
		}
	}
}

// compare tells what became of the names.
func (h *followingHandle) compare(before addresses, failed map[string]error) (changes []string) {
	for _, name := range h.meant.asked.names() {
		was, is := before[name.text], h.meant.named[name.text]
		err := failed[name.text]
		switch {
		case err == nil && !slices.Equal(was, is):
			changes = append(changes, fmt.Sprintf("%s, it was %s", describe(name.text, is), orNone(was)))
		case err != nil && len(was) > 0 && !h.lost[name.text]:
			changes = append(changes, fmt.Sprintf("%s: %v; its last addresses stay: %s", name.text, err, join(was)))
		}
		h.lost[name.text] = err != nil && len(was) > 0
	}
	return changes
}

func orNone(found []netip.Addr) string {
	if len(found) == 0 {
		return "without an address"
	}
	return join(found)
}

// Changes implements Follower.
func (h *followingHandle) Changes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	changes := h.changes
	h.changes = nil
	return changes
}

// Notes implements Handle.
func (h *followingHandle) Notes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ruleHandle.Notes()
}

// Disarm implements Handle.
func (h *followingHandle) Disarm() error {
	h.stop()
	return h.ruleHandle.Disarm()
}

// Close implements Handle.
func (h *followingHandle) Close() error {
	h.stop()
	<-h.done
	return h.ruleHandle.Close()
}
