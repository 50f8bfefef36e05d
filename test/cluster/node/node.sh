#!/bin/bash
# Runs in the node before its kubelet: the network.
set -eux
. /etc/node.env
# What the plugins wrote about networks of pods is about namespaces of another boot, and half of it may be written, if the power was lost:
# then the runtime could never take the networks of those pods down, and the kubelet not start them again.
rm -rf /var/lib/cni/results /var/lib/cni/networks
ip link set eth0 up
ip addr replace 10.0.2.15/24 dev eth0
ip route replace default via 10.0.2.2
sysctl -qw net.ipv4.ip_forward=1
# The services of the API server and of names, which are on the host; nobody but the host knows what pods are called.
nft -f - <<END
table ip node
delete table ip node
table ip node {
	chain service {
		ip daddr 10.96.0.1 tcp dport 443 dnat to 10.0.2.2:$API_PORT
		ip daddr 10.96.0.10 udp dport 53 dnat to 10.0.2.2:$NAMES_PORT
	}
	chain prerouting {
		type nat hook prerouting priority dstnat
		jump service
	}
	chain output {
		type nat hook output priority -100
		jump service
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname eth0 masquerade
	}
}
END
