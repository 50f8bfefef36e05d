package faults

import (
	"strings"
	"testing"
)

// TestPoolRefusals: what has no meaning with a pool is told as that.
func TestPoolRefusals(t *testing.T) {
	for want, c := range map[string]Connect{
		"protocol: udp was given":                          {MaxConnections: 3, Traffic: Traffic{Protocol: "udp"}},
		"ops: accept was given together with maxConnectio": {MaxConnections: 3, Ops: []string{"accept"}, Errnos: []string{"EIO"}},
		"ops: connect was given together with maxConnecti": {MaxConnections: 3, Ops: []string{"connect"}},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
