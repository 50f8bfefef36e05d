package main

import (
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// trafficFlags are of all kinds that choose among packets or connections.
func trafficFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "peer", Usage: "peer that is hurt, an address or `CIDR`; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "except", Usage: "peer that is spared, an address or `CIDR`: of all that hold an address the longest decides; repeatable"},
		&cli.StringSliceFlag{Name: "port", Usage: "port of the peer, `N[-M]`; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "local-port", Usage: "port of the target, `N[-M]`; repeatable", DefaultText: "all"},
		&cli.StringFlag{Name: "protocol", Usage: "tcp, udp, icmp (also ICMPv6) or sctp", DefaultText: "all"},
		&cli.StringFlag{Name: "state", Usage: "with --protocol tcp: new (segments that open a connection) or established (all others)", DefaultText: "both"},
		&cli.StringSliceFlag{Name: "tcp-flag", Usage: "with --protocol tcp: `FLAG` that must be set, such as syn, or must not, such as '!ack'; repeatable"},
		&cli.UintFlag{Name: "min-length", Usage: "only packets of so many `BYTES` or more, from the IP header on"},
		&cli.StringSliceFlag{Name: "dscp", Usage: "only packets with this `MARK`, such as ef, af41, cs1 or 46; repeatable", DefaultText: "any"},
	}
}

// traffic is what these flags say beside peers, ports and protocol; nil: nothing.
func traffic(c *cli.Context) *v1.Traffic {
	t := &v1.Traffic{
		Except: listed(c, "except"), LocalPorts: listed(c, "local-port"), State: c.String("state"), TcpFlags: listed(c, "tcp-flag"),
		MinLength: uint32(min(c.Uint("min-length"), 1<<32-1)), Dscp: listed(c, "dscp"),
	}
	if proto.Equal(t, &v1.Traffic{}) {
		return nil
	}
	return t
}
