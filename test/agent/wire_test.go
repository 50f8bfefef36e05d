package agent

import (
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// wire is what the agent's way to the API server leads over, and can be cut.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// newWire gives a wire to the server of a kubeconfig, and the kubeconfig that leads over it.
func newWire(t *testing.T, kubeconfig, dir string) (*wire, string) {
	t.Helper()
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`https://[\d.:]+`).FindString(string(text))
	to, err := url.Parse(server)
	if err != nil || server == "" {
		t.Fatalf("there is no server in %s: %v", kubeconfig, err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, to: to.Host}
	var serving sync.WaitGroup
	serving.Go(w.serve)
	t.Cleanup(func() {
		listener.Close()
		w.setCut(true)
		serving.Wait()
	})
	file := filepath.Join(dir, "agent.kubeconfig")
	over := regexp.MustCompile(regexp.QuoteMeta(server)).ReplaceAll(text, []byte("https://"+listener.Addr().String()))
	if err := os.WriteFile(file, over, 0o600); err != nil {
		t.Fatal(err)
	}
	return w, file
}

// setCut cuts the wire, with all that is under way, or mends it.
func (w *wire) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wire) serve() {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil || !w.keep(near, far) {
			near.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			all.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
			})
		}
	}
}

// keep notes a connection, if the wire is whole.
func (w *wire) keep(near, far net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		far.Close()
		return false
	}
	w.conns = append(w.conns, near, far)
	return true
}
