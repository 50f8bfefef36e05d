package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func injectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inject",
		Usage:       "start a fault and print its id",
		ArgsUsage:   "KIND",
		Description: "Flags may stand before or after KIND. With --wait and -o json only the ended fault is printed.",
		Action:      noCommand,
		Subcommands: []*cli.Command{
			kindCommand("backlog", "take the places in a listener's queue, until nobody is let in", backlogFlags(), backlogKind),
			kindCommand("block", "fail reads and writes of one block device, under its file system", blockFlags(), blockKind),
			kindCommand("connect", "fail what is done to sockets, or reset connections", connectFlags(), connectKind),
			kindCommand("cpu", "squeeze the processor time, or burn some", cpuFlags(), cpuKind),
			kindCommand("disk", "fill a file system, or use up its inodes", diskFlags(), diskKind),
			kindCommand("dns", "answer queries in the server's place, or late", dnsFlags(), dnsKind),
			kindCommand("fds", "hold files open, until the node may have no more", fdsFlags(), fdsKind),
			kindCommand("file", "fail, delay or pretend what is done to files, by path", fileFlags(), fileKind),
			kindCommand("http", "answer requests in the server's place, late or changed", httpFlags(), httpKind),
			kindCommand("io", "squeeze reads from and writes to a disk, or keep it busy", ioFlags(), ioKind),
			kindCommand("kernel", "fail allocations of memory that the kernel makes in system calls", kernelFlags(), kernelKind),
			kindCommand("memory", "squeeze the memory, or take some", memoryFlags(), memoryKind),
			kindCommand("node", "reboot, crash, hang or starve the whole node, or stop a service of it", nodeFlags(), nodeKind),
			kindCommand("packet", "lose, delay or damage packets, silently as a wire does", packetFlags(), packetKind),
			kindCommand("partition", "cut the target from peers, or from all but some", partitionFlags(), partitionKind),
			kindCommand("pids", "squeeze the number of threads and processes, or use some up", pidsFlags(), pidsKind),
			kindCommand("ports", "take local ports, until new connections to a peer find none", portsFlags(), portsKind),
			kindCommand("process", "signal, kill or pause processes", processFlags(), processKind),
			kindCommand("syscall", "delay system calls, fail them, pretend them, or cut them short", syscallFlags(), syscallKind),
		},
	}
}

// kindCommand makes "inject KIND"; fill reads the flags of the kind into the spec.
func kindCommand(name, usage string, flags []cli.Flag, fill func(*cli.Context, *v1.FaultSpec) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: append(commonFlags(), flags...),
		Action: func(c *cli.Context) error { return inject(c, fill) },
	}
}

func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "target", Usage: "who is hurt, a `SELECTOR`: cgroup:PATH, pid:N, unit:NAME, container:NAME, pod:NAMESPACE/NAME#CONTAINER or pods:NAMESPACE?LABELS"},
		&cli.BoolFlag{Name: "all", Usage: "hurt all targets that the selector means, if there are several"},
		&cli.BoolFlag{Name: "follow", Usage: "hurt all containers and pods that the selector means while the fault lasts: those that start are taken in, those that are gone dropped"},
		&cli.DurationFlag{Name: "wait-for-target", Usage: "wait at most so `LONG` until the target is there and may be hurt; exit 64 if nobody comes"},
		&cli.StringFlag{Name: "duration", Usage: "how long the fault lasts, such as 30s or 5m"},
		&cli.Float64Flag{Name: "percent", Usage: "chance of each match in (0,100]", DefaultText: "100"},
		&cli.Uint64Flag{Name: "every-nth", Usage: "hurt only every `N`-th match"},
		&cli.Uint64Flag{Name: "skip-first", Usage: "spare the first `N` matches"},
		&cli.Uint64Flag{Name: "max-hits", Usage: "do nothing more after `N` injections"},
		&cli.Float64Flag{Name: "rate", Usage: "at most `N` injections per second, evenly spaced", DefaultText: "no limit"},
		&cli.StringFlag{Name: "dice", Usage: "what the chance is thrown for: each call, or once for all calls of a thread or process", DefaultText: "call"},
		&cli.Uint64Flag{Name: "seed", Usage: "make the dice repeatable", DefaultText: "random"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would happen, and do nothing"},
		&cli.StringFlag{Name: "key", Usage: "idempotency `KEY`: the same key again gives the same fault"},
		reasonFlag(),
		&cli.BoolFlag{Name: "wait", Usage: "wait for the end and print the counters; exit 5 if the fault did no harm; Ctrl-C stops the fault"},
	}
}

func inject(c *cli.Context, fill func(*cli.Context, *v1.FaultSpec) error) error {
	request, err := injectRequest(c, fill)
	if err != nil {
		return err
	}
	if err := awaitTarget(c, request.GetSpec().GetTarget()); err != nil {
		return err
	}
	// Not the context of the command: when it is interrupted now, the id is needed to stop the fault.
	response, err := call(context.WithoutCancel(c.Context), c, callTimeout, client(c).Inject, request)
	if isTimeout(err) && !request.GetDryRun() {
		return fmt.Errorf("%w; the fault may run, see faultd list", err)
	}
	if err != nil {
		return err
	}
	fault := response.GetFault()
	switch {
	case request.GetDryRun():
		return printDryRun(c, fault)
	case c.Err() != nil:
		return stopInterrupted(c, fault.GetId())
	case c.Bool("wait"):
		return waitInjected(c, fault.GetId())
	case isJSON(c):
		return printJSON(c.App.Writer, newFaultJSON(fault))
	default:
		return printID(c, fault.GetId())
	}
}

// awaitTarget waits until the target is there, if that was asked for.
func awaitTarget(c *cli.Context, target string) error {
	if !c.IsSet("wait-for-target") {
		return nil
	}
	wait := c.Duration("wait-for-target")
	err := newDaemonNode(c).Await(c.Context, []string{target}, 1, wait)
	if c.Err() != nil {
		return exitError{exitInterrupted, errors.New("interrupted while waiting for the target; no fault was started")}
	}
	return err
}

// canAwait refuses what cannot be waited for.
func canAwait(c *cli.Context, target string) error {
	switch wait := c.Duration("wait-for-target"); {
	case !c.IsSet("wait-for-target"):
		return nil
	case c.Bool("dry-run"):
		return usageErrorf("--wait-for-target: with --dry-run nobody is waited for")
	case wait < time.Millisecond:
		return usageErrorf("--wait-for-target: %s is out of range; it must be 1ms or more", wait)
	case strings.HasPrefix(target, "pid:"):
		return usageErrorf("--wait-for-target: a process that is not there yet has no number, and %s is the target; name its cgroup, unit, container or pod", target)
	}
	return nil
}

func injectRequest(c *cli.Context, fill func(*cli.Context, *v1.FaultSpec) error) (*v1.InjectRequest, error) {
	if err := noWords(c); err != nil {
		return nil, err
	}
	if err := numbersFit(c); err != nil {
		return nil, err
	}
	if err := nothingEmpty(c); err != nil {
		return nil, err
	}
	target, err := needed(c, "target")
	if err != nil {
		return nil, err
	}
	duration, err := needed(c, "duration")
	if err != nil {
		return nil, err
	}
	if c.Bool("wait") && c.Bool("dry-run") {
		return nil, usageErrorf("--wait: with --dry-run there is nothing to wait for")
	}
	if err := canAwait(c, target); err != nil {
		return nil, err
	}
	spec := &v1.FaultSpec{
		Target: target, Duration: duration,
		Percent:  given(c, "percent", c.Float64),
		EveryNth: c.Uint64("every-nth"), SkipFirst: c.Uint64("skip-first"), MaxHits: c.Uint64("max-hits"), Rate: c.Float64("rate"), Dice: c.String("dice"),
		Seed: given(c, "seed", c.Uint64), All: c.Bool("all"), Follow: c.Bool("follow"),
	}
	if err := fill(c, spec); err != nil {
		return nil, err
	}
	return &v1.InjectRequest{Spec: spec, DryRun: c.Bool("dry-run"), IdempotencyKey: c.String("key"), Reason: c.String("reason")}, nil
}

// numbersFit refuses what the flags' own types take and a fault has no room or no meaning for: the schema's numbers have 32 bits, and
// 0 of what bounds harm would be no bound.
func numbersFit(c *cli.Context) error {
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		switch flag.(type) {
		case *cli.UintFlag:
			if n := uint64(c.Uint(name)); n > math.MaxUint32 {
				return usageErrorf("--%s %d: it must be at most %d", name, n, uint32(math.MaxUint32))
			}
		case *cli.IntFlag:
			if n := int64(c.Int(name)); int64(int32(n)) != n {
				return usageErrorf("--%s %d: it must be in %d..%d", name, n, math.MinInt32, math.MaxInt32)
			}
		}
	}
	for _, name := range []string{"every-nth", "max-hits", "count", "weight", "read-ops", "write-ops", "pulses"} {
		if c.IsSet(name) && c.Uint64(name) == 0 {
			return usageErrorf("--%s 0: it must be at least 1; without the flag there is no such bound", name)
		}
	}
	if c.IsSet("rate") && c.Float64("rate") == 0 {
		return usageErrorf("--rate 0: it must be above 0; without the flag there is no such bound")
	}
	return nil
}

// nothingEmpty refuses flags without their text, as of a variable that nobody has set: a filter without one would choose everything.
func nothingEmpty(c *cli.Context) error {
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		switch _, text := flag.(*cli.StringFlag); name {
		case "body", "request-body", "key", "reason": // may be empty
		default:
			if text && c.IsSet(name) && c.String(name) == "" {
				return usageErrorf("--%s: empty; give a value, or leave the flag out", name)
			}
		}
	}
	return nil
}

// waitInjected waits for the end of a fault that this command started. Whoever interrupts it stops the fault.
func waitInjected(c *cli.Context, id string) error {
	if !isJSON(c) {
		if err := printID(c, id); err != nil {
			return err
		}
	}
	fault, err := waitEnded(c, id)
	if c.Err() != nil {
		return stopInterrupted(c, id)
	}
	if err != nil {
		return err
	}
	return printEnded(c, fault)
}

// stopInterrupted stops a fault after the command was interrupted.
func stopInterrupted(c *cli.Context, id string) error {
	response, err := call(context.WithoutCancel(c.Context), c, callTimeout, client(c).Stop, &v1.StopRequest{Id: id})
	if err != nil {
		return exitError{exitInterrupted, fmt.Errorf("interrupted; stop %s: %w", id, err)}
	}
	if err := printFault(c, response.GetFault()); err != nil {
		return err
	}
	return exitError{exitInterrupted, fmt.Errorf("interrupted; %s is stopped", id)}
}

func printID(c *cli.Context, id string) error {
	_, err := fmt.Fprintln(c.App.Writer, plain(id))
	return err
}

// pollInterval is how often waiting asks for the state.
const pollInterval = 200 * time.Millisecond

// waitEnded waits until a fault has ended or is stuck, or the command is interrupted.
func waitEnded(c *cli.Context, id string) (*v1.Fault, error) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		response, err := ask(c, client(c).Get, &v1.GetRequest{Id: id})
		if err != nil {
			return nil, err
		}
		switch response.GetFault().GetState() {
		case "ended", "stuck":
			return response.GetFault(), nil
		}
		select {
		case <-c.Done():
			return nil, c.Err()
		case <-ticker.C:
		}
	}
}
