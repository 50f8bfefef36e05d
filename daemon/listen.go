package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// servers are the listeners of the daemon, all bound before it says that it is ready.
type servers struct {
	socket  string
	control net.Listener
	metrics net.Listener
	http    []*http.Server
}

// peer is who is at the other end of the socket.
type peer struct {
	pid      int
	uid, gid uint32
}

func (p peer) String() string { return fmt.Sprintf("uid=%d pid=%d", p.uid, p.pid) }

type peerKey struct{}

func peerOf(ctx context.Context) peer {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return peer{uid: ^uint32(0), gid: ^uint32(0)} // nobody
	}
	return p
}

func (d *Daemon) listen() (*servers, error) {
	s := &servers{socket: d.options.Socket}
	if answered(d.options.Socket) {
		return nil, fmt.Errorf("listen on %s: another faultd answers there; stop that one, or give --socket, --state-dir and --pin-dir of its own", d.options.Socket)
	}
	err := noteSocket(d.options.StateDir, d.options.Socket)
	if err != nil {
		return nil, err
	}
	if s.control, err = listenUnix(d.options.Socket); err != nil {
		return nil, err
	}
	if d.options.MetricsListen != "" {
		if s.metrics, err = net.Listen("tcp", d.options.MetricsListen); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for metrics: %w", err), s.close())
		}
		d.env.Infrastructure.Listeners = []netip.AddrPort{s.metrics.Addr().(*net.TCPAddr).AddrPort()}
	}
	control, err := d.controlHandler()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	s.http = append(s.http, &http.Server{Handler: control, Protocols: &protocols, ConnContext: withPeer, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10})
	if s.metrics != nil {
		observers := http.NewServeMux()
		d.handleObservers(observers)
		s.http = append(s.http, &http.Server{Handler: observers, ReadHeaderTimeout: 5 * time.Second})
	}
	return s, nil
}

const (
	// privatePrefix begins the name of the directory in which a socket is made.
	privatePrefix = ".s-"
	// socketNote is the file in the state directory that says where the socket is, for whoever clears up after us.
	socketNote = "socket"
)

// longestSocket is how many bytes the path of a unix socket may have (unix(7)).
const longestSocket = 107

// checkMetricsListen refuses what is no address to listen on.
func checkMetricsListen(addr string) error {
	if addr == "" {
		return nil
	}
	if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
		return fmt.Errorf("metrics-listen: %q is no address to listen on; write it as :9797 or 127.0.0.1:9797 (%w)", addr, err)
	}
	return nil
}

// checkSocket refuses a path that nobody could connect to, in whose directory none could be made, and where something else is, which a socket
// would replace.
func checkSocket(path string) error {
	private := len(filepath.Join(filepath.Dir(path), privatePrefix+"4294967295", "s")) // as os.MkdirTemp names at most
	if len(path) > longestSocket || private > longestSocket {
		return fmt.Errorf("socket: %q is too long for a socket; it may have %d bytes, its directory %d", path, longestSocket, longestSocket-(private-len(filepath.Dir(path))))
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("socket: %q is there, and is no socket; give a path of its own", path)
	}
	return nil
}

// answered says whether somebody listens on a socket.
func answered(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func noteSocket(stateDir, socket string) error {
	path, err := filepath.Abs(socket)
	if err == nil {
		err = os.WriteFile(filepath.Join(stateDir, socketNote), []byte(path+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note where the socket is: %w", err)
	}
	return nil
}

// notedSocket is "" where no daemon noted one.
func notedSocket(stateDir string) string {
	text, _ := os.ReadFile(filepath.Join(stateDir, socketNote))
	return strings.TrimSpace(string(text))
}

// listenUnix makes the socket in a private directory, sets its mode there, and renames it: nobody can connect before the mode holds.
func listenUnix(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	private, err := os.MkdirTemp(dir, privatePrefix)
	if err != nil {
		return nil, fmt.Errorf("make a private directory for the socket: %w", err)
	}
	defer os.RemoveAll(private)
	temporary := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it will have another name
	if err := errors.Join(os.Chmod(temporary, 0o660), os.Rename(temporary, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("put the socket at %s: %w", path, err), l.Close())
	}
	return l, nil
}

// withPeer asks the kernel who connected (SO_PEERCRED, unix(7)).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) { cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{int(cred.Pid), cred.Uid, cred.Gid})
}

// serve starts all servers; the first that fails says so.
func (s *servers) serve() <-chan error {
	failed := make(chan error, 2)
	for i, l := range []net.Listener{s.control, s.metrics} {
		if l == nil {
			continue
		}
		go func() {
			if err := s.http[i].Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		}()
	}
	return failed
}

func (s *servers) close() error {
	var errs []error
	for _, server := range s.http {
		errs = append(errs, server.Close())
	}
	errs = append(errs, s.control.Close(), os.Remove(s.socket))
	if s.metrics != nil {
		errs = append(errs, s.metrics.Close())
	}
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrNotExist) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}
