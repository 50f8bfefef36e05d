package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkPacket is what the programs take for a packet of the target that the rule does not mean, without the network around it: the kernel
// runs them again and again on one packet (BPF_PROG_TEST_RUN), some 40 ns of which are its own.
func BenchmarkPacket(b *testing.B) {
	k, target := openKernel(b), newTarget(b)
	moveInto(b, target)
	for name, traffic := range map[string]Traffic{"ports": {Ports: []Ports{{5, 5}}}, "peers": {Peers: PeersOf(netip.MustParsePrefix("198.18.0.0/24"))}} {
		in, err := k.InstallPacket(target, Rule{Action: ActionLose, Percent: 100, Egress: true, Ingress: true, Traffic: traffic, Until: time.Now().Add(time.Minute)},
			PacketEnv{Namespaces: []NetNS{ownNamespace(b)}, Journal: undoByHand})
		if err != nil {
			b.Fatal(err)
		}
		for _, program := range []string{"faultd_egress", "faultd_ingress"} {
			for protocol, packet := range map[string][]byte{"tcp": packetOf(unix.IPPROTO_TCP), "udp": packetOf(unix.IPPROTO_UDP)} {
				b.Run(fmt.Sprintf("%s/%s/%s", name, program, protocol), func(b *testing.B) {
					_, took, err := loadedProgram(b, k, program).Benchmark(packet, b.N, nil)
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
				})
			}
		}
		if c := in.Counters(); c.Evaluated == 0 || c.Matched != 0 {
			b.Errorf("%s: %+v", name, c)
		}
		if err := in.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// loadedProgram is a program of this name that some rule has loaded.
func loadedProgram(tb testing.TB, k *Kernel, name string) *ebpf.Program {
	tb.Helper()
	for _, shared := range k.shared {
		if c, ok := shared.closer.(collection); ok && c.Programs[name] != nil {
			return c.Programs[name]
		}
	}
	tb.Fatalf("program %s is not loaded", name)
	return nil
}

// moveInto makes this process one of the target, until the test ends: the kernel runs programs for a socket of whoever asks.
func moveInto(tb testing.TB, target Target) {
	tb.Helper()
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
	}
	if err := move(target.Dir); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := move(filepath.Dir(target.Dir)); err != nil {
			tb.Error(err)
		}
	})
}

// packetOf is an IPv4 packet from 127.0.0.1 port 40000 to port 6379 there, in an Ethernet frame.
func packetOf(protocol byte) []byte {
	frame := make([]byte, 14+20+20+64)
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	ip := frame[14:]
	ip[0], ip[8], ip[9] = 4<<4|5, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	binary.BigEndian.PutUint16(ip[20:], 40000)
	binary.BigEndian.PutUint16(ip[22:], 6379)
	ip[32] = 5 << 4 // the length of TCP's header
	return frame
}
