package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

// signalling sends a signal to chosen processes.
type signalling struct {
	process Process
	tree    *cgroup.Hierarchy
	target  cgroup.Target
	dice    *bpf.Dice
	random  *rand.Rand
	permit  *permit
	// only are the processes that are meant, by id: their start times. Nil: all.
	only map[int]uint64
	// seen are the processes that were in the target before, by id: their start times. Nil until the first time.
	seen map[int]uint64
}

func newSignalling(p Process, env Env, target cgroup.Target, dice *bpf.Dice, seed *uint64, permit *permit) *signalling {
	source := rand.NewPCG(rand.Uint64(), 0)
	if seed != nil {
		source = rand.NewPCG(*seed, 0)
	}
	return &signalling{process: p, tree: env.Cgroups, target: target, dice: dice, random: rand.New(source), permit: permit}
}

func (s *signalling) do() (notes []string, err error) {
	pids, err := s.tree.Processes(s.target)
	if err != nil {
		return nil, listError(err)
	}
	newcomers, err := s.newcomers(pids)
	if err != nil {
		return nil, err
	}
	if s.process.Starts {
		pids = newcomers
	}
	living, err := s.describe(pids)
	if err != nil {
		return nil, err
	}
	chosen, notes := s.choose(living)
	for _, p := range chosen {
		if !s.permit.given() {
			break
		}
		if !s.dice.Due() {
			continue
		}
		if err := s.send(p); err != nil {
			notes = append(notes, err.Error())
		}
	}
	return notes, nil
}

// newcomers gives those that were not there the last time; the first time, none. It reads no more of a process than when it started.
func (s *signalling) newcomers(pids []int) (newcomers []int, err error) {
	now := map[int]uint64{}
	for _, pid := range pids {
		start, err := undo.StartTime(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, listError(err) // passed over, it would be new the next time
		}
		now[pid] = start
		if s.seen != nil && s.seen[pid] != start {
			newcomers = append(newcomers, pid)
		}
	}
	s.seen = now
	return newcomers, nil
}

func (s *signalling) describe(pids []int) (living []cgroup.Process, err error) {
	for _, pid := range pids {
		p, err := s.tree.Describe(pid)
		if errors.Is(err, cgroup.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, listError(err)
		}
		living = append(living, p)
	}
	return living, nil
}

// choose gives the processes that fit, as many as are wanted, and tells of the first ones of containers, which are spared.
func (s *signalling) choose(living []cgroup.Process) (chosen []cgroup.Process, notes []string) {
	for _, p := range living {
		s.dice.Evaluated()
		switch {
		case !s.fits(p):
		case p.Init && !s.process.Init:
			notes = append(notes, fmt.Sprintf("process %d (%s) is the first of its container and was spared; init means it too", p.PID, p.Executable))
		default:
			chosen = append(chosen, p)
		}
	}
	if n := s.process.Count; n > 0 && n < len(chosen) {
		s.random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = slices.Clip(chosen[:n])
	}
	return chosen, notes
}

func (s *signalling) fits(p cgroup.Process) bool {
	if started, meant := s.only[p.PID]; s.only != nil && (!meant || started != p.StartTime) {
		return false
	}
	if s.process.executables != nil && !s.process.executables.Match(p.Executable) {
		return false
	}
	return s.process.CommandLine == nil || s.process.CommandLine.MatchString(p.CommandLine)
}

// send signals a process if it still is the one that was chosen, and in the target.
func (s *signalling) send(p cgroup.Process) error {
	err := sendSignal(s.tree, s.target, p.PID, p.StartTime, s.process.Signal)
	if err == nil {
		s.dice.Injected()
		return nil
	}
	s.dice.NotApplied()
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended by itself
	}
	return fmt.Errorf("send %s to process %d: %w", unix.SignalName(s.process.Signal), p.PID, err)
}

// sendSignal signals the process of that number that started then, if it is in the target; else the error is ESRCH. It looks only while it
// holds the process: as long as that lives its number means nobody else, and if it does not, the signal reaches nobody.
func sendSignal(tree *cgroup.Hierarchy, target cgroup.Target, pid int, start uint64, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, err := undo.StartTime(pid); errors.Is(err, fs.ErrNotExist) || err == nil && now != start {
		return unix.ESRCH
	} else if err != nil {
		return err
	}
	if held, err := tree.Holds(target, pid); err != nil {
		return err
	} else if !held {
		return unix.ESRCH // it has left
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0)
}

func (s *signalling) update(common Common) error { return s.dice.Update(common.rule()) }
func (s *signalling) counters() bpf.Counters     { return s.dice.Counters() }
func (s *signalling) mechanism() string          { return mechanismPidfd }
