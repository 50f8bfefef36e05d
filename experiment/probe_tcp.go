package experiment

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// tcpProbe connects, and may say something and wait for a line.
type tcpProbe struct {
	latency
	tlsOptions
	tls           bool
	address, send string
}

func (d *document) tcpProbe(field string, m *v1.TcpProbe) check {
	took := latency(d.duration(field+".latency", m.GetLatency(), leastDuration, 0))
	return &tcpProbe{took, d.tls(field+".tls", m.GetTls()), m.GetTls() != nil, m.GetAddress(), m.GetSend()}
}

func (p *tcpProbe) dial(ctx context.Context) (net.Conn, error) {
	if p.tls {
		return (&tls.Dialer{Config: p.at(p.address)}).DialContext(ctx, "tcp", p.address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", p.address)
}

func (p *tcpProbe) ask(ctx context.Context, _ Counters) (string, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if p.send == "" {
		return "", nil
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, p.send); err != nil {
		return "", fmt.Errorf("send: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxValue)).ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("wait for an answer: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
