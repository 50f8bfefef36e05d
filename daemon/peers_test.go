package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tcpServer takes connections on an address such as 127.0.0.1:0 and sends every line back.
func tcpServer(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serveLines(l)
	return l.Addr().String()
}

func serveLines(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			sendBack(c)
		}()
	}
}

func sendBack(c net.Conn) {
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// sink is a UDP socket that nobody reads: what does not fit is dropped at it, and no sender knows.
func sink(t *testing.T, address string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// receiver counts the datagrams that arrive, by sender.
type receiver struct {
	address string
	conn    net.PacketConn

	mu  sync.Mutex
	got map[string]int
	sum int
}

func receive(t *testing.T, address string) *receiver {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	// All that a test sends before this process has its turn must find room.
	if err := forceBuffer(c.(*net.UDPConn), 4<<20); err != nil {
		t.Fatal(err)
	}
	r := &receiver{address: c.LocalAddr().String(), conn: c, got: map[string]int{}}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		r.read()
	}()
	return r
}

// forceBuffer gives a socket room beyond what the node allows its users.
func forceBuffer(c *net.UDPConn, bytes int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) { forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) })
	return errors.Join(err, forced)
}

func (r *receiver) read() {
	buffer := make([]byte, 16)
	for {
		_, from, err := r.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.got[from.String()]++
		r.sum++
		r.mu.Unlock()
	}
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sum
}

// flows gives how many senders were heard each number of times.
func (r *receiver) flows() map[int]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	flows := map[int]int{}
	for _, n := range r.got {
		flows[n]++
	}
	return flows
}

func port(address string) string {
	return address[strings.LastIndexByte(address, ':')+1:]
}

// dialSocket dials a unix socket, whatever the address.
func dialSocket(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }
}
