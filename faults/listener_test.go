package faults

import (
	"maps"
	"net/netip"
	"testing"
)

func TestListeners(t *testing.T) {
	found := map[string]netip.AddrPort{}
	// As a machine with the low byte first shows them.
	addListeners(found, `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F91 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100 0 0 10 0
`)
	addListeners(found, `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000200000A:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0000000000000000 100 0 0 10 0
   2: half a line
`)
	want := map[string]netip.AddrPort{
		"11": netip.MustParseAddrPort("127.0.0.1:8080"), "12": netip.MustParseAddrPort("0.0.0.0:22"),
		"21": netip.MustParseAddrPort("[::1]:8080"), "22": netip.MustParseAddrPort("10.0.0.2:80"),
	}
	if !maps.Equal(found, want) {
		t.Errorf("got %v, want %v", found, want)
	}
}

func TestMeets(t *testing.T) {
	for _, test := range []struct {
		listener, at string
		meets        bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.1:81", false}, {"127.0.0.1:80", "10.0.0.1:80", false},
		{"0.0.0.0:80", "10.0.0.1:80", true}, {"0.0.0.0:80", "[::1]:80", false}, {"[::]:80", "10.0.0.1:80", true}, {"[::]:80", "[::1]:80", true}, {"[::1]:80", "[::]:80", false},
	} {
		if got := meets(netip.MustParseAddrPort(test.listener), netip.MustParseAddrPort(test.at)); got != test.meets {
			t.Errorf("connections to %s arrive at %s: %v", test.at, test.listener, got)
		}
	}
}
