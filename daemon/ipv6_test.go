package daemon_test

import (
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestPeersWithoutIPv6: where the target has no IPv6, a fault on peers of IPv6 alone is refused; one on both hurts those of IPv4.
func TestPeersWithoutIPv6(t *testing.T) {
	kernels.OnHost(t)
	n, l := startNode(t), &lane{t: t}
	target := n.target()
	l.inside(newNetNS(t), func() {
		l.must(os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0))
		n.worker(target)
	})
	for kind, spec := range map[string]*v1.FaultSpec{
		"packet":    lose(target, &v1.Packet{Loss: 100, Peers: []string{"2001:db8::1", "fd00::/8"}}),
		"partition": {Kind: &v1.FaultSpec_Partition{Partition: &v1.Partition{Peers: []string{"fd00::/8"}}}},
		"connect":   {Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EIO", Peers: []string{"fd00::1"}}}},
	} {
		if spec.GetTarget() == "" {
			whole := refuse(target)
			whole.Kind = spec.GetKind()
			spec = whole
		}
		_, err := n.tryInject(spec)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), kind+".peers: ") || !strings.Contains(err.Error(), "is IPv6, and there is none") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Peers: []string{"fd00::/8", "10.0.0.0/8"}}))
	n.stop(f.GetId())
	n.idle()
}
