package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

const (
	// lookupPatience bounds the resolution of a name, and answerPatience the wait for one answer to it.
	lookupPatience = 5 * time.Second
	answerPatience = 2 * time.Second
)

// errNoAddress says that a name has no address.
var errNoAddress = errors.New("it has no address")

// lookup resolves a name as the target does: by its hosts file, then by its DNS servers, asked from its network namespace. The
// addresses are sorted.
func (h home) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	addresses, err := h.hosts(name), error(nil)
	conf := h.resolvConf()
	for _, absolute := range conf.absolute(name) {
		if len(addresses) > 0 || err != nil {
			break
		}
		addresses, err = h.ask(ctx, conf.servers, absolute)
	}
	if err == nil && len(addresses) == 0 {
		err = errNoAddress
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), err
}

// ask asks the servers one after the other until one knows the name, or knows that there is none.
func (h home) ask(ctx context.Context, servers []netip.Addr, name string) (addresses []netip.Addr, err error) {
	var errs []error
	for _, server := range servers {
		four, err := h.askOne(ctx, server, name, dns.TypeA)
		var six []netip.Addr
		if err == nil {
			six, err = h.askOne(ctx, server, name, dns.TypeAAAA)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("ask %s: %w", server, err))
			continue
		}
		return append(four, six...), nil
	}
	return nil, errors.Join(errs...)
}

func (h home) askOne(ctx context.Context, server netip.Addr, name string, kind uint16) ([]netip.Addr, error) {
	question := new(dns.Msg).SetQuestion(name, kind)
	answer, err := h.exchange(ctx, "udp", server, question)
	if err == nil && answer.Truncated {
		answer, err = h.exchange(ctx, "tcp", server, question)
	}
	if err != nil {
		return nil, err
	}
	if answer.Rcode == dns.RcodeNameError {
		return nil, nil
	}
	if answer.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("it answers %s", dns.RcodeToString[answer.Rcode])
	}
	var addresses []netip.Addr
	for _, record := range answer.Answer {
		var ip net.IP
		switch r := record.(type) {
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		}
		if address, ok := netip.AddrFromSlice(ip); ok {
			addresses = append(addresses, address.Unmap())
		}
	}
	return addresses, nil
}

func (h home) exchange(ctx context.Context, network string, server netip.Addr, question *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := h.ns.Dial(ctx, network, net.JoinHostPort(server.String(), strconv.Itoa(dnsPort)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := &dns.Client{Net: network, Timeout: answerPatience}
	answer, _, err := client.ExchangeWithConnContext(ctx, question, &dns.Conn{Conn: conn})
	return answer, err
}
