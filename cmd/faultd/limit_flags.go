package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// termsFlags are of all kinds that squeeze limits.
func termsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "on-change", Usage: "when somebody else changes the limit meanwhile: report, reapply or give-up", DefaultText: "report"},
		&cli.StringFlag{Name: "ramp", Usage: "the limit, or the load, comes to its height evenly over this time, such as 2m", DefaultText: "at once"},
		&cli.StringFlag{Name: "pulse", Usage: "the limit is set and written back in turn, `ON/OFF` such as 5s/10s"},
		&cli.UintFlag{Name: "pulses", Usage: "how many times it is set", DefaultText: "until the fault ends"},
	}
}

// pulses reads --pulse and --pulses.
func pulses(c *cli.Context) (*v1.Pulses, error) {
	if c.String("pulse") == "" {
		if c.IsSet("pulses") {
			return nil, usageErrorf("--pulses: it was given without --pulse, such as 5s/10s")
		}
		return nil, nil
	}
	on, off, both := strings.Cut(c.String("pulse"), "/")
	if !both || on == "" || off == "" {
		return nil, usageErrorf("--pulse: %q must be how long the limit is set and how long not, such as 5s/10s", c.String("pulse"))
	}
	return &v1.Pulses{On: on, Off: off, Count: uint32(c.Uint("pulses"))}, nil
}

func cpuFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "limit", Usage: "`50%` of what the target may use now, or a number of processors, such as 1.5"},
		&cli.UintFlag{Name: "weight", Usage: "its part among its siblings when processors are short, in 1..10000"},
		&cli.StringFlag{Name: "load", Usage: "burn processor time: `50%` of each of --cores, '50% of quota' or a number of processors, such as 1.5"},
		&cli.UintFlag{Name: "cores", Usage: "how many of its processors the target may run on; of a load in percent: on how many it is", DefaultText: "all; of a load: 1"},
		&cli.IntFlag{Name: "nice", Usage: "niceness of the load, in -20..19", DefaultText: "0"},
		&cli.StringFlag{Name: "cpus", Usage: "processors that the target, or the load, runs on, a `LIST` such as 0-1,3", DefaultText: "all"},
		placeFlag(),
	}, termsFlags())
}

// placeFlag is of all kinds that are load.
func placeFlag() cli.Flag {
	return &cli.StringFlag{Name: "place", Usage: "where the load is: inside the target, within its limits, or beside it, as a neighbour", DefaultText: "inside"}
}

func cpuKind(c *cli.Context, spec *v1.FaultSpec) error {
	pulses, err := pulses(c)
	spec.Kind = &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{
		Limit: c.String("limit"), Weight: uint32(c.Uint("weight")), OnChange: c.String("on-change"),
		Load: c.String("load"), Cores: uint32Given(c, "cores"), Nice: int32Given(c, "nice"), Cpus: c.String("cpus"), Ramp: c.String("ramp"), Place: c.String("place"),
		Pulses: pulses,
	}}
	return err
}

func memoryFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "limit", Usage: "the most it may have, beyond which the kernel kills: `AMOUNT` such as 512MiB, '80% of use' or '80% of limit'"},
		&cli.StringFlag{Name: "high", Usage: "from which `AMOUNT` on it is slowed down and reclaimed from"},
		&cli.BoolFlag{Name: "no-swap", Usage: "it may swap nothing more"},
		&cli.BoolFlag{Name: "allow-oom", Usage: "allow a limit below what is used now"},
		&cli.StringFlag{Name: "load", Usage: "take memory and keep it: `AMOUNT` such as 512MiB, '50% of limit' or '50% of available'"},
		&cli.StringFlag{Name: "type", Usage: "of the load: anonymous, shared (tmpfs), locked (is never swapped out) or cache (the page cache of a file)", DefaultText: "anonymous"},
		&cli.StringFlag{Name: "path", Usage: "a `DIRECTORY` for the file of a cache, as the target sees it; it takes no space"},
		&cli.StringFlag{Name: "floor", Usage: "the load never leaves less than `AMOUNT` available", DefaultText: "64MiB"},
		placeFlag(),
	}, termsFlags())
}

func memoryKind(c *cli.Context, spec *v1.FaultSpec) error {
	pulses, err := pulses(c)
	spec.Kind = &v1.FaultSpec_Memory{Memory: &v1.Memory{
		Limit: c.String("limit"), High: c.String("high"), NoSwap: c.Bool("no-swap"), AllowOom: c.Bool("allow-oom"), OnChange: c.String("on-change"),
		Load: c.String("load"), Type: c.String("type"), Path: c.String("path"), Ramp: c.String("ramp"), Floor: c.String("floor"), Place: c.String("place"),
		Pulses: pulses,
	}}
	return err
}

func ioFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "device", Usage: "the disk, `DEVICE` such as /dev/vdb or 254:16"},
		&cli.StringFlag{Name: "path", Usage: "a `DIRECTORY` on the disk, as the target sees it"},
		&cli.StringFlag{Name: "read", Usage: "`AMOUNT` read per second at most, such as 1MiB"},
		&cli.StringFlag{Name: "write", Usage: "`AMOUNT` written per second at most, such as 1MiB"},
		&cli.UintFlag{Name: "read-ops", Usage: "read requests per second at most"},
		&cli.UintFlag{Name: "write-ops", Usage: "write requests per second at most"},
		&cli.UintFlag{Name: "weight", Usage: "its part among its siblings when the disk is short, in 1..10000; needs iocost or bfq on the disk"},
		&cli.StringFlag{Name: "load", Usage: "keep the disk under --path busy: `RATE` such as 20MiB or '200 ops' per second"},
		&cli.StringFlag{Name: "op", Usage: "what an operation of the load is: read, write or fsync (a write that waits until the disk has it)", DefaultText: "write"},
		&cli.StringFlag{Name: "pattern", Usage: "which block of the load's file comes next: sequential or random", DefaultText: "sequential"},
		&cli.StringFlag{Name: "block", Usage: "`AMOUNT` that an operation of the load reads or writes, a multiple of 4KiB", DefaultText: "64KiB"},
		&cli.StringFlag{Name: "size", Usage: "`AMOUNT` of space of the load's file", DefaultText: "64MiB"},
		&cli.StringFlag{Name: "floor", Usage: "the load's file never leaves less than `AMOUNT` free", DefaultText: "64MiB"},
		placeFlag(),
		&cli.BoolFlag{Name: "allow-root-fs", Usage: "allow a load on the node's own file systems: of /, kubelet, the container runtime and faultd"},
	}, termsFlags())
}

func ioKind(c *cli.Context, spec *v1.FaultSpec) error {
	if err := oneFlag(c, "device", "path"); err != nil {
		return err
	}
	pulses, err := pulses(c)
	spec.Kind = &v1.FaultSpec_Io{Io: &v1.Io{
		Device: c.String("device"), Path: c.String("path"), Read: c.String("read"), Write: c.String("write"),
		ReadOps: uint32(c.Uint("read-ops")), WriteOps: uint32(c.Uint("write-ops")), Weight: uint32(c.Uint("weight")), OnChange: c.String("on-change"), Ramp: c.String("ramp"), Pulses: pulses,
		Load: c.String("load"), Op: c.String("op"), Pattern: c.String("pattern"), Block: c.String("block"), Size: c.String("size"),
		Floor: c.String("floor"), Place: c.String("place"), AllowRoot: c.Bool("allow-root-fs"),
	}}
	return err
}

func pidsFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.UintFlag{Name: "more", Usage: "how many more threads and processes than there are now; 0: none"},
		&cli.StringFlag{Name: "load", Usage: "hold threads that do nothing: `N`, or so many that '100% of limit' are in use"},
		placeFlag(),
	}, termsFlags()...)
}

func pidsKind(c *cli.Context, spec *v1.FaultSpec) error {
	pulses, err := pulses(c)
	spec.Kind = &v1.FaultSpec_Pids{Pids: &v1.Pids{More: uint32Given(c, "more"), OnChange: c.String("on-change"), Ramp: c.String("ramp"), Pulses: pulses,
		Load: c.String("load"), Place: c.String("place")}}
	return err
}

// uint32Given and int32Given are given for the schema's small numbers.
func uint32Given(c *cli.Context, name string) *uint32 {
	return given(c, name, func(name string) uint32 { return uint32(c.Uint(name)) })
}

func int32Given(c *cli.Context, name string) *int32 {
	return given(c, name, func(name string) int32 { return int32(c.Int(name)) })
}
