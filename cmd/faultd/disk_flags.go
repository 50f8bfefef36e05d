package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func diskFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "path", Usage: "a `DIRECTORY` on the file system, as the target sees it"},
		&cli.BoolFlag{Name: "inodes", Usage: "use up inodes instead of space; amounts are then numbers"},
		&cli.StringFlag{Name: "size", Usage: "take `AMOUNT`, such as 10GiB"},
		&cli.Float64Flag{Name: "percent-used", Usage: "take until so many percent are used, as df counts"},
		&cli.StringFlag{Name: "reserve", Usage: "take until `AMOUNT` is free"},
		&cli.StringFlag{Name: "floor", Usage: "never leave less than `AMOUNT` free", DefaultText: "64MiB, or 1 % of the inodes"},
		&cli.StringFlag{Name: "ramp", Usage: "get there evenly over this time, such as 2m", DefaultText: "at once"},
		&cli.BoolFlag{Name: "allow-root-fs", Usage: "allow the node's own file systems: of /, kubelet, the container runtime and faultd"},
	}
}

func diskKind(c *cli.Context, spec *v1.FaultSpec) error {
	path, err := needed(c, "path")
	if err != nil {
		return err
	}
	if err := oneFlag(c, "size", "percent-used", "reserve"); err != nil {
		return err
	}
	disk := &v1.Disk{
		Path: path, Size: c.String("size"), PercentUsed: given(c, "percent-used", c.Float64), Reserve: c.String("reserve"),
		Floor: c.String("floor"), Ramp: c.String("ramp"), AllowRoot: c.Bool("allow-root-fs"),
	}
	if c.Bool("inodes") {
		disk.Resource = "inodes"
	}
	spec.Kind = &v1.FaultSpec_Disk{Disk: disk}
	return nil
}
