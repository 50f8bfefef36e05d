package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// peerFlags are of all kinds that look at peers.
func peerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "peer", Usage: "peer that is hurt, an address or `CIDR`; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "port", Usage: "port of the peer, `N[-M]`; repeatable", DefaultText: "all"},
		&cli.StringFlag{Name: "protocol", Usage: "tcp or udp", DefaultText: "both"},
	}
}

func connectFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "errno", Usage: "`NAME` of the error the caller gets, such as ECONNREFUSED"},
		&cli.BoolFlag{Name: "blackhole", Usage: "packets vanish and the caller times out"},
	}, peerFlags()...)
}

func connectKind(c *cli.Context, spec *v1.FaultSpec) error {
	errno, blackhole := c.String("errno"), c.Bool("blackhole")
	if errno == "" && !blackhole {
		return usageErrorf("give --errno NAME or --blackhole")
	}
	if errno != "" && blackhole {
		return usageErrorf("--errno %s and --blackhole exclude each other: a connection either fails or times out", errno)
	}
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{
		Errno: errno, Blackhole: blackhole,
		Peers: c.StringSlice("peer"), Ports: c.StringSlice("port"), Protocol: c.String("protocol"),
	}}
	return nil
}

func packetFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.Float64Flag{Name: "loss", Usage: "chance of each packet, or flow, to be lost, in (0,100]"},
		&cli.StringFlag{Name: "direction", Usage: "egress, ingress or both", DefaultText: "both"},
		&cli.BoolFlag{Name: "per-flow", Usage: "throw the dice once per flow: a lost flow loses all its packets"},
	}, peerFlags()...)
}

func packetKind(c *cli.Context, spec *v1.FaultSpec) error {
	if !c.IsSet("loss") {
		return usageErrorf("--loss: missing")
	}
	if c.IsSet("percent") {
		return usageErrorf("--loss and --percent exclude each other: --loss is the dice of packets")
	}
	spec.Kind = &v1.FaultSpec_Packet{Packet: &v1.Packet{
		Loss: c.Float64("loss"), Direction: c.String("direction"), PerFlow: c.Bool("per-flow"),
		Peers: c.StringSlice("peer"), Ports: c.StringSlice("port"), Protocol: c.String("protocol"),
	}}
	return nil
}

func syscallFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "call", Usage: "`NAME[,NAME]` of the calls, such as openat; repeatable"},
		&cli.StringFlag{Name: "delay", Usage: "how long each hurt call sleeps, such as 20ms"},
		&cli.StringFlag{Name: "jitter", Usage: "draw the delay evenly from delay - jitter to delay + jitter"},
	}
}

func syscallKind(c *cli.Context, spec *v1.FaultSpec) error {
	if len(c.StringSlice("call")) == 0 {
		return usageErrorf("--call: missing")
	}
	delay, err := needed(c, "delay")
	if err != nil {
		return err
	}
	spec.Kind = &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{
		Calls: c.StringSlice("call"), Delay: delay, Jitter: c.String("jitter"),
	}}
	return nil
}
