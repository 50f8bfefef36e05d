package cluster

import (
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names are those that the cluster has.
var names = map[string][4]byte{
	"shelf.shop.svc.cluster.local.": {192, 0, 2, 7},
	"pay.example.com.":              {192, 0, 2, 8},
}

// serveNames answers for the names of the cluster, on a port of the loopback, until the test is over.
func serveNames(t *testing.T) (port int) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, client, err := conn.ReadFromUDPAddrPort(query)
			if err != nil {
				return
			}
			if answer, err := answerName(query[:n]); err == nil {
				_, _ = conn.WriteToUDPAddrPort(answer, client) // who gets none asks again
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// answerName gives the address of a name, if it is one of the cluster's.
func answerName(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	for _, q := range m.Questions {
		address, known := names[q.Name.String()]
		if !known {
			m.RCode = dnsmessage.RCodeNameError
		} else if q.Type == dnsmessage.TypeA {
			header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: address}})
		}
	}
	return m.Pack()
}
