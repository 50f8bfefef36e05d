package main

import (
	"slices"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

func connectFlags() []cli.Flag {
	return append([]cli.Flag{
		errnoFlag(),
		&cli.StringSliceFlag{Name: "op", Usage: "`OP` that fails: socket, bind, listen, connect, accept, send or receive; repeatable", DefaultText: "connect"},
		&cli.BoolFlag{Name: "blackhole", Usage: "packets vanish and the caller times out"},
		&cli.StringFlag{Name: "timeout", Usage: "with --blackhole, the kernel gives a TCP connection up after this `DURATION`, 100ms to 2m", DefaultText: "as by itself, some 2 minutes"},
		&cli.BoolFlag{Name: "reset", Usage: "reset established TCP connections, to both ends"},
		&cli.StringFlag{Name: "every", Usage: "how often they are reset, a `DURATION` such as 10s", DefaultText: "once"},
		&cli.StringFlag{Name: "reset-after", Usage: "reset each TCP connection when it has lived for this `DURATION`, such as 30s"},
		&cli.StringFlag{Name: "reset-after-bytes", Usage: "reset each TCP connection when it has moved this `AMOUNT`, such as 1MiB"},
		&cli.UintFlag{Name: "max-connections", Usage: "let the target have `N` TCP connections; the next fails, with ECONNREFUSED if no --errno is given"},
	}, trafficFlags()...)
}

func connectKind(c *cli.Context, spec *v1.FaultSpec) error {
	if !c.IsSet("errno") || !c.IsSet("max-connections") {
		if err := oneFlag(c, "errno", "blackhole", "reset", "reset-after", "reset-after-bytes", "max-connections"); err != nil {
			return err
		}
	}
	if c.IsSet("max-connections") && c.Uint("max-connections") == 0 {
		return usageErrorf("--max-connections 0: it must be at least 1; --errno alone lets no connection be made")
	}
	peers, err := peers(c)
	if err != nil {
		return err
	}
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{
		Errnos: listed(c, "errno"), Ops: listed(c, "op"), Blackhole: c.Bool("blackhole"), Timeout: c.String("timeout"),
		Reset_: c.Bool("reset"), Every: c.String("every"), ResetAfter: c.String("reset-after"), ResetAfterBytes: c.String("reset-after-bytes"), MaxConnections: uint32(min(c.Uint("max-connections"), 1<<30)),
		Peers: peers, Ports: listed(c, "port"), Protocol: c.String("protocol"), Traffic: traffic(c),
	}}
	return nil
}

func packetFlags() []cli.Flag {
	return slices.Concat(lossFlags(), []cli.Flag{
		&cli.StringFlag{Name: "direction", Usage: "egress, ingress or both", DefaultText: "both; egress with anything but loss"},
		&cli.BoolFlag{Name: "per-flow", Usage: "throw the dice once per flow: a lost flow loses all its packets"},
		&cli.BoolFlag{Name: "corrupt-payload", Usage: "change a bit of the data of TCP and UDP, and the checksum with it, so that only the program can notice; alone, with --percent as the dice"},
	}, wireFlags(), trafficFlags())
}

func packetKind(c *cli.Context, spec *v1.FaultSpec) error {
	loses := slices.ContainsFunc([]string{"loss", "loss-gemodel", "loss-state"}, c.IsSet)
	if !loses && !slices.ContainsFunc([]string{"delay", "duplicate", "corrupt", "corrupt-payload", "bandwidth"}, c.IsSet) {
		return usageErrorf("--loss: missing; give one of --loss, --loss-gemodel, --loss-state, --delay, --duplicate, --corrupt, --bandwidth, or several; or --corrupt-payload")
	}
	if loses && c.IsSet("percent") {
		return usageErrorf("--loss and --percent exclude each other: --loss is the dice of packets")
	}
	peers, err := peers(c)
	if err != nil {
		return err
	}
	packet := wire(c)
	packet.Direction, packet.PerFlow, packet.CorruptPayload = c.String("direction"), c.Bool("per-flow"), c.Bool("corrupt-payload")
	packet.Peers, packet.Ports, packet.Protocol, packet.Traffic = peers, listed(c, "port"), c.String("protocol"), traffic(c)
	spec.Kind = &v1.FaultSpec_Packet{Packet: packet}
	return lossOf(c, packet)
}

func partitionFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "direction", Usage: "egress (the target is not heard), ingress (it does not hear) or both", DefaultText: "both"},
		&cli.BoolFlag{Name: "half-open", Usage: "TCP without data passes: connections open, and then stand still"},
	}, trafficFlags()...)
}

func partitionKind(c *cli.Context, spec *v1.FaultSpec) error {
	peers, err := peers(c)
	if err != nil {
		return err
	}
	if len(peers) == 0 && len(c.StringSlice("except")) == 0 {
		return usageErrorf("give --peer or --peers-file, or --except")
	}
	spec.Kind = &v1.FaultSpec_Partition{Partition: &v1.Partition{
		Direction: c.String("direction"), HalfOpen: c.Bool("half-open"),
		Peers: peers, Ports: listed(c, "port"), Protocol: c.String("protocol"), Traffic: traffic(c),
	}}
	return nil
}

// filterFlags choose among the target's calls.
func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "comm", Usage: "only threads of this `NAME`"},
		&cli.StringSliceFlag{Name: "exe", Usage: "only programs whose path fits this `GLOB`; repeatable"},
		&cli.UintFlag{Name: "uid", Usage: "only callers with this effective user `ID`", DefaultText: "all"},
		&cli.StringFlag{Name: "fd", Usage: "only these descriptors, `N[-M]`"},
		&cli.StringSliceFlag{Name: "fd-type", Usage: "only descriptors of this `KIND`: file, socket, pipe, tty or other; repeatable"},
		&cli.StringSliceFlag{Name: "path", Usage: "only files whose path, as the target sees it, fits this `GLOB`; repeatable"},
		&cli.StringSliceFlag{Name: "except", Usage: "but not files whose path fits this `GLOB`; repeatable"},
		&cli.StringSliceFlag{Name: "where", Usage: "only with such an argument, `CONDITION` such as 'arg2 & O_CREAT' or 'count > 4096'; repeatable"},
	}
}

func filter(c *cli.Context) *v1.Filter {
	f := &v1.Filter{Comm: c.String("comm"), Executables: c.StringSlice("exe"), Fd: c.String("fd"), FdTypes: listed(c, "fd-type"),
		Paths: c.StringSlice("path"), Except: c.StringSlice("except"), Where: c.StringSlice("where")}
	if c.IsSet("uid") {
		f.Uid = proto.Uint32(uint32(c.Uint("uid")))
	}
	if proto.Equal(f, &v1.Filter{}) {
		return nil
	}
	return f
}

// delayFlags and errnoFlag are of all kinds that hurt calls.
func delayFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "delay", Usage: "how long each hurt call sleeps, such as 20ms"},
		jitterFlag(), distributionFlag(),
	}
}

func jitterFlag() cli.Flag {
	return &cli.StringFlag{Name: "jitter", Usage: "how far the delay is spread: uniform from delay - jitter to delay + jitter; of normal the standard deviation"}
}

func distributionFlag() cli.Flag {
	return &cli.StringFlag{Name: "distribution", Usage: "uniform, normal, exponential (delay is the mean) or pareto (delay is the least)", DefaultText: "uniform"}
}

func errnoFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "errno", Usage: "`NAME` of an error that the call fails with, such as EIO; of several, EIO:3 is three times as likely; repeatable"}
}

func syscallFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringSliceFlag{Name: "call", Usage: "`NAME[,NAME]` of the calls, such as openat, or of groups, such as write; repeatable"},
		errnoFlag(),
		&cli.BoolFlag{Name: "drop", Usage: "the call is not made and pretends success"},
		&cli.StringFlag{Name: "result", Usage: "what a dropped call returns: a number or count", DefaultText: "count where it writes bytes, else 0"},
		&cli.StringFlag{Name: "short", Usage: "the call is made with a smaller count: `50%` of it, or 512 bytes at most"},
	}, delayFlags(), filterFlags())
}

func syscallKind(c *cli.Context, spec *v1.FaultSpec) error {
	if len(listed(c, "call")) == 0 {
		return usageErrorf("--call: missing")
	}
	if err := oneFlag(c, "delay", "errno", "drop", "short"); err != nil {
		return err
	}
	spec.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{
		Calls: listed(c, "call"), Delay: c.String("delay"), Jitter: c.String("jitter"), Distribution: c.String("distribution"),
		Errnos: listed(c, "errno"), Drop: c.Bool("drop"), Result: c.String("result"), Short: c.String("short"), Filter: filter(c),
	}}
	return nil
}
