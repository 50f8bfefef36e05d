package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// onChangeFlag is of all kinds that squeeze limits.
func onChangeFlag() cli.Flag {
	return &cli.StringFlag{Name: "on-change", Usage: "when somebody else changes the limit meanwhile: report, reapply or give-up", DefaultText: "report"}
}

func cpuFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "limit", Usage: "`50%` of what the target may use now, or a number of processors, such as 1.5"},
		&cli.UintFlag{Name: "weight", Usage: "its part among its siblings when processors are short, in 1..10000"},
		onChangeFlag(),
	}
}

func cpuKind(c *cli.Context, spec *v1.FaultSpec) error {
	spec.Kind = &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Limit: c.String("limit"), Weight: uint32(c.Uint("weight")), OnChange: c.String("on-change")}}
	return nil
}

func memoryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "limit", Usage: "the most it may have, beyond which the kernel kills: `AMOUNT` such as 512MiB, '80% of use' or '80% of limit'"},
		&cli.StringFlag{Name: "high", Usage: "from which `AMOUNT` on it is slowed down and reclaimed from"},
		&cli.BoolFlag{Name: "no-swap", Usage: "it may swap nothing more"},
		&cli.BoolFlag{Name: "allow-oom", Usage: "allow a limit below what is used now"},
		onChangeFlag(),
	}
}

func memoryKind(c *cli.Context, spec *v1.FaultSpec) error {
	spec.Kind = &v1.FaultSpec_Memory{Memory: &v1.Memory{
		Limit: c.String("limit"), High: c.String("high"), NoSwap: c.Bool("no-swap"), AllowOom: c.Bool("allow-oom"), OnChange: c.String("on-change"),
	}}
	return nil
}

func ioFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Usage: "the disk, `DEVICE` such as /dev/vdb or 254:16"},
		&cli.StringFlag{Name: "path", Usage: "a `DIRECTORY` on the disk, as the target sees it"},
		&cli.StringFlag{Name: "read", Usage: "`AMOUNT` read per second at most, such as 1MiB"},
		&cli.StringFlag{Name: "write", Usage: "`AMOUNT` written per second at most, such as 1MiB"},
		&cli.UintFlag{Name: "read-ops", Usage: "read requests per second at most"},
		&cli.UintFlag{Name: "write-ops", Usage: "write requests per second at most"},
		onChangeFlag(),
	}
}

func ioKind(c *cli.Context, spec *v1.FaultSpec) error {
	if err := oneFlag(c, "device", "path"); err != nil {
		return err
	}
	spec.Kind = &v1.FaultSpec_Io{Io: &v1.Io{
		Device: c.String("device"), Path: c.String("path"), Read: c.String("read"), Write: c.String("write"),
		ReadOps: uint32(c.Uint("read-ops")), WriteOps: uint32(c.Uint("write-ops")), OnChange: c.String("on-change"),
	}}
	return nil
}

func pidsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.UintFlag{Name: "more", Usage: "how many more threads and processes than there are now; 0: none"},
		onChangeFlag(),
	}
}

func pidsKind(c *cli.Context, spec *v1.FaultSpec) error {
	pids := &v1.Pids{OnChange: c.String("on-change")}
	if more := given(c, "more", c.Uint); more != nil {
		n := uint32(*more)
		pids.More = &n
	}
	spec.Kind = &v1.FaultSpec_Pids{Pids: pids}
	return nil
}
