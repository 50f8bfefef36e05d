package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func blockFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Usage: "the `DEVICE` whose requests fail, such as /dev/vdb1 or 254:17"},
		&cli.StringFlag{Name: "path", Usage: "a `DIRECTORY` on the device, as the target sees it"},
		&cli.StringFlag{Name: "direction", Usage: "read, write or both", DefaultText: "both"},
		&cli.StringFlag{Name: "sectors", Usage: "only these sectors of 512 bytes from the start of the device, `N[-M]`", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "include", Usage: "`WHAT` is hurt besides data: metadata (and journals), swap or flush; repeatable"},
		&cli.BoolFlag{Name: "allow-root-fs", Usage: "allow the node's own devices: of /, kubelet, the container runtime and faultd"},
	}
}

func blockKind(c *cli.Context, spec *v1.FaultSpec) error {
	if err := oneFlag(c, "device", "path"); err != nil {
		return err
	}
	spec.Kind = &v1.FaultSpec_Block{Block: &v1.Block{
		Device: c.String("device"), Path: c.String("path"), Direction: c.String("direction"), Sectors: c.String("sectors"),
		Include: listed(c, "include"), AllowRoot: c.Bool("allow-root-fs"),
	}}
	return nil
}

func kernelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "call", Usage: "`NAME[,NAME]` of the calls in which allocations fail, such as mmap, or of groups, such as network; repeatable", DefaultText: "all"},
		&cli.StringFlag{Name: "alloc", Usage: "what is allocated: slab (objects), page or both", DefaultText: "both"},
		&cli.UintFlag{Name: "min-order", Usage: "of pages only allocations of 2^`N` or more"},
	}
}

func kernelKind(c *cli.Context, spec *v1.FaultSpec) error {
	calls := listed(c, "call")
	if len(calls) == 0 {
		calls = []string{"all"}
	}
	spec.Kind = &v1.FaultSpec_Kernel{Kernel: &v1.Kernel{Calls: calls, Alloc: c.String("alloc"), MinOrder: uint32(min(c.Uint("min-order"), 1<<20))}}
	return nil
}
