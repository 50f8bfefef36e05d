package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func fdsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "load", Usage: "hold files open: `N`, or so many that '100% of limit' are open, of what the node may have (fs.file-max)"},
		placeFlag(),
	}
}

func fdsKind(c *cli.Context, spec *v1.FaultSpec) error {
	load, err := needed(c, "load")
	spec.Kind = &v1.FaultSpec_Fds{Fds: &v1.Fds{Load: load, Place: c.String("place")}}
	return err
}

func portsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "peer", Usage: "whom new connections find no local port for: `ADDRESS:PORT`"},
		&cli.StringFlag{Name: "load", Usage: "how many ports are taken: `N`, or all", DefaultText: "all"},
		placeFlag(),
	}
}

func portsKind(c *cli.Context, spec *v1.FaultSpec) error {
	peer, err := needed(c, "peer")
	spec.Kind = &v1.FaultSpec_Ports{Ports: &v1.Ports{Peer: peer, Load: loadOr(c, "all"), Place: c.String("place")}}
	return err
}

// loadOr is the load that was given, or else another.
func loadOr(c *cli.Context, otherwise string) string {
	if load := c.String("load"); load != "" {
		return load
	}
	return otherwise
}

func backlogFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "listener", Usage: "where the target listens: `ADDRESS:PORT`, such as 127.0.0.1:8080 or [::]:8080"},
		&cli.StringFlag{Name: "load", Usage: "how many connections are held: `N`, or full: until the queue takes no more", DefaultText: "full"},
		placeFlag(),
	}
}

func backlogKind(c *cli.Context, spec *v1.FaultSpec) error {
	listener, err := needed(c, "listener")
	spec.Kind = &v1.FaultSpec_Backlog{Backlog: &v1.Backlog{Listener: listener, Load: loadOr(c, "full"), Place: c.String("place")}}
	return err
}
