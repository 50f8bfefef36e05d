package daemon_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// workCommand is the argument with which the test binary runs itself as a process of a target.
const workCommand = "work"

// work does what it is told: the one order it is given, or a line in, a line out.
func work(order []string, in io.Reader, out io.Writer) error {
	var l labourer
	if len(order) > 0 {
		answer, err := l.obey(order)
		fmt.Fprintln(out, answer)
		return err
	}
	fmt.Fprintln(out, "ready")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := l.obey(strings.Fields(lines.Text()))
		if err != nil {
			answer = "failed: " + err.Error()
		}
		fmt.Fprintln(out, answer)
	}
	return lines.Err()
}

// labourer is what such a process keeps from one order to the next.
type labourer struct {
	conn   *net.TCPConn
	heard  *net.UDPConn
	hammer *hammer
	kept   *dns.Conn // resolver_test.go
	web    *browser  // webwork_test.go
	hoard  hoard     // pool_test.go
	deaf   int       // held_test.go
	flood  *flood    // flood_work_test.go
}

// obey carries out one order. THREADS threads do TIMES calls each.
func (l *labourer) obey(order []string) (string, error) {
	if len(order) == 0 {
		return "", errors.New("no order")
	}
	a := args{rest: order[1:]}
	switch order[0] {
	case "dial": // NETWORK ADDRESS PATIENCE TIMES THREADS
		return a.tally(dialOnce(a.text(), a.text(), a.duration()))
	case "send": // ADDRESS TIMES THREADS
		return a.sendMany()
	case "flows": // ADDRESS SOCKETS TIMES
		return sendFlows(a.address(), a.number(), a.number())
	case "number": // ADDRESS FIRST TIMES
		return numberPackets(a.address(), a.number(), a.number())
	case "odd": // PROTOCOL ADDRESS SERVICE TIMES
		return sendOdd(a.text(), a.text(), a.number(), a.number())
	case "call": // NAME TIMES THREADS
		return a.tally(callOnce(a.text()))
	case "flood": // flood_work_test.go
		return l.obeyFlood(a)
	case "wire": // wirenet_test.go
		return wireOrder(a)
	case "sockets": // ADDRESS
		return trySockets(a.address())
	case "disk": // disk_test.go
		return diskOrder(a)
	case "burn": // MILLISECONDS of processor time
		return spend(time.Duration(a.number()) * time.Millisecond)
	case "hold": // MIB of memory
		return hold(a.number())
	case "sync": // PATH TIMES: a page is written, to the disk
		return syncMany(a.text(), a.number())
	case "dns": // resolver_test.go
		return l.resolve(a)
	case "web": // webwork_test.go
		if l.web == nil {
			l.web = newBrowser()
		}
		return l.web.obey(a)
	case "child": // ORDER...
		out, err := selfCommand(append([]string{workCommand}, a.rest...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	case "open": // ADDRESS
		return l.open(a.text())
	case "echo": // TIMES
		return l.echo(a.number())
	case "move": // BYTES; the server sends them back
		return l.move(a.number()), nil
	case "hoard": // pool_test.go
		return l.hoard.obey(a)
	case "hear": // ADDRESS, then "heard"
		return l.hear(a.text())
	case "heard":
		return l.countHeard()
	case "serve": // ADDRESS: sends every line back
		return l.serve(a.text())
	case "answer": // ADDRESS: sends every datagram back
		return answer(a.text())
	case "deaf": // ADDRESS PLACES: a listener with a queue of so many places, who accepts nobody, then "accept"
		return l.listen(a.address(), a.number())
	case "accept":
		return l.acceptAll()
	case "mount": // SOURCE TARGET
		return resultOf(unix.Mount(a.text(), a.text(), "", unix.MS_BIND, "")), nil
	case "hammer": // ADDRESS THREADS, then "grace"
		l.hammer = startHammer(a.address(), a.number())
		return "hammering", nil
	case "grace": // ADDRESS TIMES
		return l.hammer.grace(a.address(), a.number())
	}
	return "", fmt.Errorf("order %q is unknown", order)
}

// args takes an order apart; what cannot be read ends the process, which the test sees.
type args struct{ rest []string }

func (a *args) text() string {
	if len(a.rest) == 0 {
		panic("an order is too short")
	}
	first := a.rest[0]
	a.rest = a.rest[1:]
	return first
}

func (a *args) number() int {
	n, err := strconv.Atoi(a.text())
	if err != nil {
		panic(err)
	}
	return n
}

func (a *args) duration() time.Duration {
	d, err := time.ParseDuration(a.text())
	if err != nil {
		panic(err)
	}
	return d
}

func (a *args) address() netip.AddrPort { return netip.MustParseAddrPort(a.text()) }

// tally has many threads do something many times and counts the results.
func (a *args) tally(once func() (string, error)) (string, error) {
	times, threads := a.number(), a.number()
	return tally(times, threads, func() (func() (string, error), error) { return once, nil })
}

func tally(times, threads int, prepare func() (func() (string, error), error)) (string, error) {
	var mu sync.Mutex
	results := map[string]int{}
	var failed error
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			own := map[string]int{}
			once, err := prepare()
			for i := 0; err == nil && i < times; i++ {
				var result string
				result, err = once()
				own[result]++
			}
			mu.Lock()
			defer mu.Unlock()
			for result, n := range own {
				results[result] += n
			}
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	return fmt.Sprint(results), failed
}

// resultOf names what a call came to.
func resultOf(err error) string {
	var errno syscall.Errno
	var impatient net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.As(err, &impatient) && impatient.Timeout():
		return "timeout"
	}
	return err.Error()
}

func dialOnce(network, address string, patience time.Duration) func() (string, error) {
	return func() (string, error) {
		c, err := net.DialTimeout(network, address, patience)
		if err == nil {
			c.Close()
		}
		return resultOf(err), nil
	}
}

// callOnce makes one system call, which Go's scheduler knows of: it may block.
func callOnce(name string) func() (string, error) {
	return func() (string, error) {
		switch name {
		case "getpgid":
			unix.Syscall(unix.SYS_GETPGID, 0, 0, 0)
		case "socketpair":
			var pair [2]int32
			_, _, errno := unix.Syscall6(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0, uintptr(unsafe.Pointer(&pair)), 0, 0)
			if errno != 0 {
				return resultOf(errno), nil
			}
			return "ok", errors.Join(unix.Close(int(pair[0])), unix.Close(int(pair[1])))
		default:
			return "", fmt.Errorf("call %q is unknown", name)
		}
		return "ok", nil
	}
}

// sendMany sends datagrams with an address, each thread from a socket of its own that asks to be told of losses.
func (a *args) sendMany() (string, error) {
	address, times, threads := a.address(), a.number(), a.number()
	var mu sync.Mutex
	var sockets []int
	defer func() {
		for _, fd := range sockets {
			unix.Close(fd)
		}
	}()
	return tally(times, threads, func() (func() (string, error), error) {
		to := sockaddr(address) // Sendto writes into it
		fd, err := udpSocket(to)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		sockets = append(sockets, fd)
		mu.Unlock()
		return func() (string, error) {
			if result := resultOf(unix.Sendto(fd, []byte("x"), 0, to)); result != "ok" {
				return result, nil
			}
			pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if pending != 0 {
				return "later " + unix.ErrnoName(syscall.Errno(pending)), nil
			}
			return "ok", err
		}, nil
	})
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// udpSocket has IP_RECVERR set: with it a sender is told of drops that are not silent.
func udpSocket(to unix.Sockaddr) (int, error) {
	family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR
	if _, six := to.(*unix.SockaddrInet6); six {
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptInt(fd, level, option, 1)
}

// sendFlows sends from many sockets, so many flows.
func sendFlows(to netip.AddrPort, sockets, times int) (string, error) {
	for range sockets {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return "", err
		}
		defer c.Close()
		for range times {
			if _, err := c.Write([]byte("x")); err != nil {
				return "", err
			}
		}
	}
	return "sent", nil
}

// numberPackets sends datagrams that say which they are.
func numberPackets(to netip.AddrPort, first, times int) (string, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return "", err
	}
	defer c.Close()
	for i := range times {
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, uint32(first+i))); err != nil {
			return "", err
		}
	}
	return "sent", nil
}

// open makes a connection whose segments are small: otherwise loopback would make one packet of it all.
func (l *labourer) open(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return "", err
	}
	l.conn = c.(*net.TCPConn)
	return "opened", l.conn.SetNoDelay(true)
}

// echo sends lines to a server that sends them back, and gives their hash and the retransmissions.
func (l *labourer) echo(times int) (string, error) {
	reader, hash := bufio.NewReader(l.conn), sha256.New()
	for i := range times {
		fmt.Fprintf(hash, "line %d\n", i)
		if _, err := fmt.Fprintf(l.conn, "line %d\n", i); err != nil {
			return "", err
		}
		line, err := reader.ReadString('\n')
		if err != nil {
			return "", err
		}
		if want := fmt.Sprintf("line %d\n", i); line != want {
			return "", fmt.Errorf("got %q back for %q", line, want)
		}
	}
	info, err := tcpInfo(l.conn)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x %d", hash.Sum(nil)[:4], info.Total_retrans), nil
}

// move sends a line of so many bytes and hears it back, if nothing happens to the connection.
func (l *labourer) move(bytes int) string {
	line := strings.Repeat("x", bytes-1) + "\n"
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(l.conn, line)
		sent <- err
	}()
	_, err := io.ReadFull(l.conn, make([]byte, bytes))
	// The one who comes second sees a closed connection.
	for _, err := range []error{err, <-sent} {
		if errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ECONNRESET) {
			return resultOf(err)
		}
	}
	return resultOf(err)
}

func tcpInfo(c *net.TCPConn) (*unix.TCPInfo, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	return info, errors.Join(err, asked)
}

func (l *labourer) serve(address string) (string, error) {
	listening, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	go serveLines(listening)
	return listening.Addr().String(), nil
}

// answer is serve for datagrams, by a socket without a peer.
func answer(address string) (string, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		return "", err
	}
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buffer[:n], from) // if nobody is there any more it does not matter
		}
	}()
	return c.LocalAddr().String(), nil
}

func (l *labourer) hear(address string) (string, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		return "", err
	}
	l.heard = c
	return c.LocalAddr().String(), nil
}

// countHeard takes what has arrived and does not wait for more.
func (l *labourer) countHeard() (string, error) {
	raw, err := l.heard.SyscallConn()
	if err != nil {
		return "", err
	}
	n, buffer := 0, make([]byte, 16)
	err = raw.Control(func(fd uintptr) {
		for {
			if _, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT); err != nil {
				return
			}
			n++
		}
	})
	return strconv.Itoa(n), err
}

// hammer sends from many threads without a pause.
type hammer struct {
	// off is the address of the sends after the switch is known to be off; nil: it may be on.
	off               atomic.Pointer[netip.AddrPort]
	after             atomic.Int64
	early, hurt, late atomic.Int64
	// hammering are the threads that have not seen off yet.
	threads, hammering sync.WaitGroup
}

func startHammer(to netip.AddrPort, threads int) *hammer {
	h := &hammer{}
	var begun sync.WaitGroup
	for range threads {
		begun.Add(1)
		h.hammering.Add(1)
		h.threads.Go(func() {
			runtime.LockOSThread()
			h.strike(to, begun.Done)
		})
	}
	begun.Wait()
	return h
}

// strike sends until it has done its share of sends that began after the switch was off.
func (h *hammer) strike(to netip.AddrPort, begun func()) {
	fd, err := udpSocket(sockaddr(to))
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	for after := int64(0); ; {
		off := h.off.Load()
		if off == nil {
			err := unix.Sendto(fd, []byte("x"), 0, sockaddr(to))
			if h.early.Add(1); err != nil {
				h.hurt.Add(1)
			}
			if begun != nil {
				begun()
				begun = nil
			}
			continue
		}
		if after == 0 {
			// The queue of a busy processor has room for a thousand packets; what hammers would push the last ones out of it.
			h.hammering.Done()
			h.hammering.Wait()
		}
		if after == h.after.Load() {
			return
		}
		after++
		if err := unix.Sendto(fd, []byte("x"), 0, sockaddr(*off)); err != nil {
			h.late.Add(1)
		}
	}
}

// grace ends the hammering with so many sends of each thread to another address, all begun after this order came.
func (h *hammer) grace(to netip.AddrPort, times int) (string, error) {
	h.after.Store(int64(times))
	h.off.Store(&to)
	h.threads.Wait()
	return fmt.Sprintf("early %d hurt %d late %d", h.early.Load(), h.hurt.Load(), h.late.Load()), nil
}

// spend uses processor time.
func spend(length time.Duration) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var used unix.Timespec
	for start := int64(0); used.Nano()-start < int64(length); {
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used); err != nil {
			return "", err
		}
		if start == 0 {
			start = used.Nano()
		}
	}
	return "ok", nil
}

// hold takes memory and keeps it.
func hold(mib int) (string, error) {
	memory, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return resultOf(err), nil
	}
	// It stays mapped until we end.
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	return "ok", nil
}

// syncMany writes a page and waits for the disk, again and again.
func syncMany(path string, times int) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for range times {
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			return "", err
		}
		if err := f.Sync(); err != nil {
			return resultOf(err), nil
		}
	}
	return "ok", nil
}
