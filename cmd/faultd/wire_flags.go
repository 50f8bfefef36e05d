package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// wireFlags are what netem does.
func wireFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "delay", Usage: "how late outgoing packets are, such as 100ms"},
		&cli.StringFlag{Name: "jitter", Usage: "how far the delay is spread: uniform from delay - jitter to delay + jitter; else the standard deviation"},
		&cli.Float64Flag{Name: "correlation", Usage: "how much a delay depends on the one before, in percent"},
		&cli.StringFlag{Name: "distribution", Usage: "of the jitter: uniform, normal, pareto or paretonormal", DefaultText: "uniform"},
		&cli.Float64Flag{Name: "reorder", Usage: "chance of a packet to go at once, before those that are late, in percent"},
		&cli.Float64Flag{Name: "reorder-correlation", Usage: "how much that depends on the packet before, in percent"},
		&cli.UintFlag{Name: "gap", Usage: "only every `N`-th packet may go at once", DefaultText: "each"},
		&cli.Float64Flag{Name: "duplicate", Usage: "chance of a packet to be sent twice, in percent"},
		&cli.Float64Flag{Name: "duplicate-correlation", Usage: "how much that depends on the packet before, in percent"},
		&cli.Float64Flag{Name: "corrupt", Usage: "chance of one bit to be flipped, which the packet's checksums catch, in percent"},
		&cli.Float64Flag{Name: "corrupt-correlation", Usage: "how much that depends on the packet before, in percent"},
		&cli.StringFlag{Name: "bandwidth", Usage: "at most so much passes, a `RATE` such as 10mbit"},
		&cli.StringFlag{Name: "burst", Usage: "so much passes at once, a `SIZE` such as 64KiB", DefaultText: "each packet waits for its own time"},
		&cli.UintFlag{Name: "overhead", Usage: "`BYTES` added to the length of each packet, for --bandwidth"},
	}
}

func wire(c *cli.Context) *v1.Packet {
	return &v1.Packet{
		Delay: c.String("delay"), Jitter: c.String("jitter"), Correlation: c.Float64("correlation"), Distribution: c.String("distribution"),
		Reorder: c.Float64("reorder"), ReorderCorrelation: c.Float64("reorder-correlation"), Gap: uint32(c.Uint("gap")),
		Duplicate: c.Float64("duplicate"), DuplicateCorrelation: c.Float64("duplicate-correlation"),
		Corrupt: c.Float64("corrupt"), CorruptCorrelation: c.Float64("corrupt-correlation"),
		Bandwidth: c.String("bandwidth"), Burst: c.String("burst"), Overhead: uint32(c.Uint("overhead")),
	}
}
