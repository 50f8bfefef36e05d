package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func nodeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "action", Usage: "what happens: reboot, power-off, panic, hang, pause-unit, stop-unit, memory, clock-jump or clock-drift"},
		&cli.StringFlag{Name: "unit", Usage: "with pause-unit and stop-unit the `SERVICE` that stands still or is stopped, such as kubelet.service"},
		&cli.StringFlag{Name: "amount", Usage: "with memory how much is taken: `AMOUNT` such as 8GiB, or '80% of available'"},
		&cli.StringFlag{Name: "floor", Usage: "with memory how much is always left, `AMOUNT`", DefaultText: "64MiB"},
		&cli.StringFlag{Name: "offset", Usage: "with clock-jump by how much the clock is set ahead, `DURATION`, or with a minus back"},
		&cli.StringFlag{Name: "drift", Usage: "with clock-drift by how much the clocks run faster, `RATE` such as 200ppm or 5%, or with a minus slower"},
		&cli.BoolFlag{Name: "i-mean-this-node", Usage: "needed: says that the whole node is meant; the target is cgroup:/"},
	}
}

func nodeKind(c *cli.Context, spec *v1.FaultSpec) error {
	action, err := needed(c, "action")
	if err != nil {
		return err
	}
	if !c.Bool("i-mean-this-node") {
		return usageErrorf("--i-mean-this-node: missing; %s hurts everything on this node", action)
	}
	spec.Kind = &v1.FaultSpec_Node{Node: &v1.Node{
		Action: action, Unit: c.String("unit"), Amount: c.String("amount"), Floor: c.String("floor"), Offset: c.String("offset"), Drift: c.String("drift"), IMeanThisNode: true,
	}}
	return nil
}
