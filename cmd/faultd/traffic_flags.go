package main

import (
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/faults"
)

// trafficFlags are of all kinds that choose among packets or connections.
func trafficFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "peer", Usage: "`PEER` that is hurt: an address, a CIDR, a host name, or the selector of another target; repeatable", DefaultText: "all"},
		&cli.StringFlag{Name: "peers-file", Usage: "`FILE` with more peers, one a line; # begins a comment"},
		&cli.StringSliceFlag{Name: "except", Usage: "`PEER` that is spared; of all prefixes that hold an address the longest decides; repeatable"},
		&cli.BoolFlag{Name: "wait-for-names", Usage: "peers whose names have no address yet are hurt once they have one, instead of refused"},
		&cli.StringSliceFlag{Name: "include", Usage: "hurt what is spared by default, `NAME[,NAME]` of ssh, gateway, dns, metadata, api-server, faultd; repeatable"},
		&cli.StringSliceFlag{Name: "port", Usage: "port of the peer, `N[-M]`; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "local-port", Usage: "port of the target, `N[-M]`; repeatable", DefaultText: "all"},
		&cli.StringFlag{Name: "protocol", Usage: "tcp, udp, icmp (also ICMPv6) or sctp", DefaultText: "all"},
		&cli.StringFlag{Name: "state", Usage: "with --protocol tcp: new (segments that open a connection) or established (all others)", DefaultText: "both"},
		&cli.StringSliceFlag{Name: "tcp-flag", Usage: "with --protocol tcp: `FLAG` that must be set, such as syn, or must not, such as '!ack'; repeatable"},
		&cli.UintFlag{Name: "min-length", Usage: "only packets of so many `BYTES` or more, from the IP header on"},
		&cli.StringSliceFlag{Name: "dscp", Usage: "only packets with this `MARK`, such as ef, af41, cs1 or 46; repeatable", DefaultText: "any"},
	}
}

// peers are those of the flags and of the file.
func peers(c *cli.Context) ([]string, error) {
	named := listed(c, "peer")
	if c.String("peers-file") == "" {
		return named, nil
	}
	read, err := readPeers(c.String("peers-file"))
	return append(named, read...), err
}

// readPeers reads a file with a peer on each line, and comments.
func readPeers(path string) (peers []string, err error) {
	text, err := readFile("peers-file", path)
	if err != nil {
		return nil, err
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := faults.CheckPeer(line); err != nil {
			return nil, usageErrorf("--peers-file: %s:%d: %v", path, number, err)
		}
		peers = append(peers, line)
	}
	if len(peers) == 0 {
		return nil, usageErrorf("--peers-file: %s has no peer in it", path)
	}
	return peers, nil
}

// traffic is what these flags say beside peers, ports and protocol; nil: nothing.
func traffic(c *cli.Context) *v1.Traffic {
	t := &v1.Traffic{
		Except: listed(c, "except"), LocalPorts: listed(c, "local-port"), State: c.String("state"), TcpFlags: listed(c, "tcp-flag"),
		MinLength: uint32(min(c.Uint("min-length"), 1<<32-1)), Dscp: listed(c, "dscp"),
		WaitForNames: c.Bool("wait-for-names"), Include: listed(c, "include"),
	}
	if proto.Equal(t, &v1.Traffic{}) {
		return nil
	}
	return t
}
