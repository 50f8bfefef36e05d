package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func lossFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Float64Flag{Name: "loss", Usage: "chance of each packet, or flow, to be lost, in (0,100]"},
		&cli.Float64Flag{Name: "loss-correlation", Usage: "with --loss, how much a loss depends on the one before, in [0,100)"},
		&cli.UintFlag{Name: "loss-burst", Usage: "with --loss, `N` packets in a row are lost each time"},
		&cli.StringFlag{Name: "loss-gemodel", Usage: "netem's Gilbert-Elliott `MODEL`, such as 'p=1% r=10% 1-h=100% 1-k=0%'"},
		&cli.StringFlag{Name: "loss-state", Usage: "netem's 4-state `MODEL`, such as 'p13=1% p31=30% p32=10% p23=50% p14=0.1%'"},
	}
}

// lossOf reads --loss, --loss-gemodel or --loss-state into a packet fault, if one is given.
func lossOf(c *cli.Context, packet *v1.Packet) error {
	models := []string{"loss", "loss-gemodel", "loss-state"}
	if slices.ContainsFunc(models, c.IsSet) {
		if err := oneFlag(c, models...); err != nil {
			return err
		}
	}
	packet.Loss, packet.LossCorrelation, packet.LossBurst = c.Float64("loss"), c.Float64("loss-correlation"), uint32(c.Uint("loss-burst"))
	if c.IsSet("loss-gemodel") {
		var m v1.GilbertElliott
		packet.LossGemodel = &m
		return readModel(c, "loss-gemodel", &m.P, map[string]**float64{"r": &m.R, "1-h": &m.OneMinusH, "1-k": &m.OneMinusK}, "p, r, 1-h and 1-k")
	}
	if c.IsSet("loss-state") {
		var m v1.FourState
		packet.LossState = &m
		return readModel(c, "loss-state", &m.P13, map[string]**float64{"p31": &m.P31, "p32": &m.P32, "p23": &m.P23, "p14": &m.P14}, "p13, p31, p32, p23 and p14")
	}
	return nil
}

// readModel reads "NAME=PERCENT NAME=PERCENT"; known says which names there are, of which the first must be given.
func readModel(c *cli.Context, flag string, first *float64, others map[string]**float64, known string) error {
	needed, _, _ := strings.Cut(known, ",")
	given := map[string]bool{}
	for _, part := range strings.FieldsFunc(c.String(flag), func(r rune) bool { return r == ' ' || r == ',' }) {
		name, text, ok := strings.Cut(part, "=")
		value, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if !ok || err != nil {
			return usageErrorf("--%s: %q is not NAME=PERCENT, such as %s=1%%", flag, part, needed)
		}
		if given[name] {
			return usageErrorf("--%s: %s was given twice", flag, name)
		}
		given[name] = true
		switch {
		case name == needed:
			*first = value
		case others[name] != nil:
			*others[name] = &value
		default:
			return usageErrorf("--%s: there is no %q; it has %s", flag, name, known)
		}
	}
	if !given[needed] {
		return usageErrorf("--%s: %s is missing; give %s=PERCENT", flag, needed, needed)
	}
	return nil
}
