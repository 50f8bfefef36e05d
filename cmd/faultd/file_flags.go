package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func fileFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringSliceFlag{Name: "op", Usage: "what is done to the file, `NAME[,NAME]` of open, create, read, write, fsync, truncate, unlink, rename, mkdir, rmdir, link, stat, setattr, mmap, exec, lock, ioctl; repeatable"},
		&cli.StringFlag{Name: "preset", Usage: "instead of --op: disk-full, read-only, quota, failing-disk, slow-disk, lying-disk, stale-nfs or too-many-files"},
		errnoFlag(),
		&cli.BoolFlag{Name: "drop", Usage: "writes and fsyncs are not made and pretend success"},
	}, delayFlags(), fileFilterFlags())
}

// fileFilterFlags are those of filterFlags that choose files and callers.
func fileFilterFlags() []cli.Flag {
	return slices.DeleteFunc(filterFlags(), func(f cli.Flag) bool {
		return slices.Contains([]string{"fd", "fd-type", "where"}, f.Names()[0])
	})
}

func fileKind(c *cli.Context, spec *v1.FaultSpec) error {
	ops := listed(c, "op")
	if len(ops) == 0 && c.String("preset") == "" {
		return usageErrorf("give --op NAME or --preset NAME")
	}
	spec.Kind = &v1.FaultSpec_File{File: &v1.File{
		Ops: ops, Preset: c.String("preset"), Errnos: listed(c, "errno"), Drop: c.Bool("drop"),
		Delay: c.String("delay"), Jitter: c.String("jitter"), Distribution: c.String("distribution"), Filter: filter(c),
	}}
	return nil
}
