package daemon_test

import (
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestPeersWithoutIPv6: where the target has no IPv6, a fault on IPv6 alone is refused; one on both hurts those of IPv4.
func TestPeersWithoutIPv6(t *testing.T) {
	kernels.OnHost(t)
	n, l := startNode(t), &lane{t: t}
	target := n.target()
	l.inside(newNetNS(t), func() {
		l.must(os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0))
		n.worker(target)
	})
	of := func(kind *v1.FaultSpec) *v1.FaultSpec {
		spec := refuse(target)
		spec.Kind = kind.GetKind()
		return spec
	}
	for field, spec := range map[string]*v1.FaultSpec{
		"packet.peers":          lose(target, &v1.Packet{Loss: 100, Peers: []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "fd00::/8"}}),
		"packet.traffic.except": lose(target, &v1.Packet{Loss: 100, Traffic: &v1.Traffic{Except: []string{"0.0.0.0/0"}}}),
		"partition.peers":       cut(target, &v1.Partition{Peers: []string{"fd00::/8"}}),
		"connect.peers":         of(&v1.FaultSpec{Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EIO", Peers: []string{"fd00::1"}}}}),
		"http.peers":            web(target, &v1.Http{Status: 503, Peers: []string{"fd00::1"}}),
		"ports.peer":            of(&v1.FaultSpec{Kind: &v1.FaultSpec_Ports{Ports: &v1.Ports{Peer: "[fd00::1]:80", Load: "10"}}}),
	} {
		err := n.refused(spec)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), field+": ") || !strings.Contains(err.Error(), "IPv6") || !strings.Contains(err.Error(), "there is none") {
			t.Errorf("%s: %v", field, err)
		}
	}
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Peers: []string{"fd00::/8", "10.0.0.0/8"}}))
	n.stop(f.GetId())
	n.idle()
}
