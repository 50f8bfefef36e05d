package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// pause keeps the target frozen (cgroup.freeze). The journal knows of it before: the guard thaws it when the daemon is killed or
// stopped, or the switch is off.
type pause struct {
	env    Env
	target cgroup.Target
	freeze *change
	permit *permit
	stop   context.CancelFunc

	// mu guards what follows.
	mu      sync.Mutex
	thawed  bool
	counted bpf.Counters
	notes   []string
}

func startPause(env Env, target cgroup.Target, id string, permit *permit) (*pause, error) {
	path := filepath.Join(env.Cgroups.Dir(target), mechanismFreeze)
	if err := canFreeze(env, target); err != nil {
		return nil, err
	}
	freeze, err := changeControl(env, target, id, permit, &undo.WriteFile{Path: path, Old: "0", New: "1"})
	if err != nil {
		return nil, fmt.Errorf("freeze the target: %w", err)
	}
	p := &pause{env: env, target: target, freeze: freeze, permit: permit}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	if err := p.await(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	go p.watch(ctx)
	return p, nil
}

// watch thaws as soon as there is no permit, also if nobody asks.
func (p *pause) watch(ctx context.Context) {
	tick := time.NewTicker(watchPermit)
	defer tick.Stop()
	for p.permit.given() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	// What fails now is tried again by Close.
	_ = p.Disarm()
}

// canFreeze refuses a target that stands still already, by itself or with an ancestor: nobody could tell our freezing from that.
func canFreeze(env Env, target cgroup.Target) error {
	state, err := os.ReadFile(filepath.Join(env.Cgroups.Dir(target), mechanismFreeze))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("freeze the target: %w: its cgroup has no cgroup.freeze", bpf.ErrNotSupported)
	}
	if err != nil {
		return fmt.Errorf("freeze the target: %w", err)
	}
	frozen, err := isFrozen(env, target)
	if err != nil {
		return err
	}
	if frozen || strings.TrimSpace(string(state)) != "0" {
		return &ParameterError{"process.pause", "the target is frozen already, by another fault or by somebody else; end that, or thaw it first"}
	}
	return nil
}

// isFrozen reads whether everything in the target stands still.
func isFrozen(env Env, target cgroup.Target) (bool, error) {
	events, err := os.ReadFile(filepath.Join(env.Cgroups.Dir(target), "cgroup.events"))
	if err != nil {
		return false, fmt.Errorf("look whether the target is frozen: %w", err)
	}
	return strings.Contains(string(events), "frozen 1"), nil
}

// freezePatience is how long processes may take to come to a standstill, as those in an uninterruptible sleep do.
const freezePatience = time.Second

// await waits until everything stands still.
func (p *pause) await() error {
	for end := time.Now().Add(freezePatience); ; time.Sleep(freezePatience / 200) {
		frozen, err := isFrozen(p.env, p.target)
		if err != nil {
			return err
		}
		if frozen {
			return p.count()
		}
		if time.Now().After(end) {
			p.notes = append(p.notes, fmt.Sprintf("after %s not everything stood still: what waits for a disk does so first when it was served", freezePatience))
			return p.count()
		}
	}
}

// count counts the processes that stand still, at their most: others may be moved in. While not everything does, none counts.
func (p *pause) count() error {
	pids, err := p.env.Cgroups.Processes(p.target)
	if err != nil {
		return listError(err)
	}
	frozen, err := isFrozen(p.env, p.target)
	if err != nil {
		return err
	}
	c := &p.counted
	c.Matched = max(c.Matched, uint64(len(pids)))
	c.Evaluated = c.Matched
	if frozen && len(pids) > 0 {
		c.Injected = c.Matched
		if c.First.IsZero() {
			c.First = time.Now()
		}
	}
	c.NotApplied = c.Matched - c.Injected
	return nil
}

// Update implements Handle: only the end can change.
func (p *pause) Update(fault Fault, common Common) error {
	if f, ok := fault.(Process); !ok || !f.Pause {
		return &ParameterError{"process.pause", "a pause can change its duration alone; stop it and start another"}
	}
	p.permit.extend(common.Until)
	return nil
}

// Counters implements Handle: they count the processes that stand still.
func (p *pause) Counters() bpf.Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.thawed {
		_ = p.count() // of a target that is gone the last count holds
	}
	return p.counted
}

// Mechanism implements Handle.
func (p *pause) Mechanism() string { return mechanismFreeze }

// Notes implements Handle.
func (p *pause) Notes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notes
}

// Disarm implements Handle: it thaws, which waits for nobody.
func (p *pause) Disarm() error {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.thawed {
		return nil
	}
	_ = p.count() // of a target that is gone the last count holds
	outcome, err := p.freeze.undo()
	if err != nil {
		return err
	}
	p.thawed = true
	if outcome == undo.Changed {
		p.notes = append(p.notes, "cgroup.freeze was changed by somebody else and was left as it is")
	}
	return nil
}

// Close implements Handle.
func (p *pause) Close() error {
	if err := p.Disarm(); err != nil {
		return err
	}
	return p.freeze.strike()
}
