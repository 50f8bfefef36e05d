package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// unanswered is how many SYNs the kernel sends for a connection before it gives it up.
func unanswered(t *testing.T) (n int) {
	t.Helper()
	for _, name := range []string{"tcp_syn_retries", "tcp_syn_linear_timeouts"} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if errors.Is(err, os.ErrNotExist) && n > 0 { // before Linux 6.5
			continue
		}
		number, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err = errors.Join(err, parseErr); err != nil {
			t.Fatal(err)
		}
		n += number
	}
	return n + 1
}

// TestConnectionsTimeOut: those to the peer are given up by the kernel after the time asked for, with all its tries; others are made.
func TestConnectionsTimeOut(t *testing.T) {
	kernels.OnOldest(t)
	n, tries := startNode(t), uint64(unanswered(t))
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	for _, address := range []string{"127.0.0.1", "::1"} {
		host := strings.NewReplacer("::1", "[::1]").Replace(address)
		server, elsewhere := tcpServer(t, host+":0"), tcpServer(t, host+":0")
		blackhole := func(timeout string, change ...func(*v1.FaultSpec)) *v1.Fault {
			spec := refuse(target)
			_, port, _ := strings.Cut(server, host+":")
			spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: timeout, Peers: []string{address}, Ports: []string{port}}}
			for _, c := range change {
				c(spec)
			}
			return n.inject(spec)
		}
		const long = 2 * time.Second
		f := blackhole(long.String())
		begun := time.Now()
		w.wants("map[ETIMEDOUT:4]", "dial tcp %s 1m 2 2", server)
		// Two, one after the other.
		if took := time.Since(begun); took < 2*long {
			t.Errorf("%s: given up after %s, asked for twice %s", host, took, long)
		}
		w.wants("map[ok:4]", "dial tcp %s 1m 2 2", elsewhere)
		other.wants("map[ok:4]", "dial tcp %s 1m 2 2", server)
		if c := n.settled(f.GetId()); c.GetInjected() != 4*tries || c.GetMatched() != 4*tries {
			t.Errorf("%s: counted %v, want 4 connections of %d tries", host, c, tries)
		}
		n.stop(f.GetId())
		w.wants("map[ok:4]", "dial tcp %s 1m 2 2", server)

		// One that waits when the fault ends is made with its next try.
		f = blackhole("2m")
		w.tell("dial tcp %s 2m 1 1", server)
		n.until("a SYN is lost", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() > 0 })
		n.stop(f.GetId())
		w.wantsHeard("map[ok:1]")
	}
	n.idle()
}

// TestSomeConnectionsTimeOut: the dice decide for a connection, and its time-out goes with its packets.
func TestSomeConnectionsTimeOut(t *testing.T) {
	kernels.OnHost(t)
	n, server, tries := startNode(t), tcpServer(t, "127.0.0.1:0"), uint64(unanswered(t))
	target := n.target()
	w := n.worker(target)
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: "1s"}}
	spec.Percent = new(50.0)
	f := n.inject(spec)
	const times = 40
	answer := w.do("dial tcp4 %s 1m 1 %d", server, times)
	var lost, made uint64
	if _, err := fmt.Sscanf(answer, "map[ETIMEDOUT:%d ok:%d]", &lost, &made); err != nil || lost+made != times {
		t.Fatalf("it said %s, %v", answer, err)
	}
	if c := n.settled(f.GetId()); c.GetInjected() != lost*tries || c.GetSpared() != made {
		t.Errorf("counted %v, want %d tries of %d connections, and %d spared", c, tries, lost, made)
	}
	n.stop(f.GetId())
}

// TestTimeoutTooShort: what the kernel's tries do not fit into is refused, with what would work.
func TestTimeoutTooShort(t *testing.T) {
	kernels.OnHost(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	spec := refuse(target)
	spec.Kind = &v1.FaultSpec_Connect{Connect: &v1.Connect{Blackhole: true, Timeout: "100ms"}}
	_, err := n.tryInject(spec)
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), fmt.Sprintf("connect.timeout: 100ms is too short: the kernel tries %d times", unanswered(t))) {
		t.Errorf("a time-out of 100ms: %v", err)
	}
	n.idle()
}
