package daemon_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestWhoIsNobody: what no process or target could be is bad input; a process that is gone is not.
func TestWhoIsNobody(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	for _, c := range []struct {
		request *v1.WhoRequest
		code    connect.Code
		says    string
	}{
		{&v1.WhoRequest{Pid: 1 << 22}, connect.CodeInvalidArgument, "a process id is a number in 1..4194303"},
		{&v1.WhoRequest{Pid: 1<<22 - 1}, connect.CodeNotFound, "not found"},
		{&v1.WhoRequest{Selector: "pid:4194304"}, connect.CodeInvalidArgument, "a process id is a number in 1..4194303"},
		{&v1.WhoRequest{Selector: "cgroup:/nobody"}, connect.CodeInvalidArgument, "not found"},
	} {
		if _, err := n.client.Who(t.Context(), connect.NewRequest(c.request)); connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %v and %q", c.request, err, c.code, c.says)
		}
	}
}
