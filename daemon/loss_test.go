package daemon_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// model is a way to lose packets, with what must come of it. The step is written after netem's description of its models; it takes
// two dice in percent and says where the chain goes and whether the packet is lost.
type model struct {
	name   string
	packet *v1.Packet
	step   func(state int, moves, decides float64) (next int, lost bool)
	// between are the chances to go from state to state, lose those of a packet in it.
	between [][]float64
	lose    []float64
	// share of packets that are lost, and how many in a row on average.
	share, run float64
}

func models() []model {
	return []model{correlated(), bursts(), gilbert(), gilbertElliott(), fourStates()}
}

// correlated: with a loss of a and a correlation of c, a packet is lost with c if the one before was, and else with (1-c)a.
func correlated() model {
	const loss, correlation = 0.1, 0.6
	lost, passed := (1-correlation)*loss+correlation, (1-correlation)*loss
	return model{
		name:    "correlation",
		packet:  &v1.Packet{Loss: 100 * loss, LossCorrelation: 100 * correlation},
		step:    func(state int, moves, _ float64) (int, bool) { return twoSteps(state, moves, passed, 1-lost) },
		between: [][]float64{{1 - passed, passed}, {1 - lost, lost}}, lose: []float64{0, 1},
		share: loss, run: 1 / (1 - lost),
	}
}

// twoSteps goes on between passing (0) and losing (1).
func twoSteps(state int, moves, in, out float64) (int, bool) {
	if state == 0 && moves < 1-in || state == 1 && moves < out {
		return 0, false
	}
	return 1, true
}

// bursts: where the dice falls with p, n packets are lost.
func bursts() model {
	const p, n = 0.02, 3
	return model{
		name:   "burst",
		packet: &v1.Packet{Loss: 100 * p, LossBurst: n},
		step: func(left int, _, decides float64) (int, bool) {
			switch {
			case left > 0:
				return left - 1, true
			case decides < p:
				return n - 1, true
			}
			return 0, false
		},
		between: [][]float64{{1 - p, p, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {1 - p, p, 0, 0}}, lose: []float64{0, 1, 1, 1},
		share: n * p / (1 - p + n*p), run: n / (1 - p),
	}
}

// gilbert is what gemodel is with p and r alone: all is lost in the bad state, nothing in the good one.
func gilbert() model {
	const p, r = 0.01, 0.2
	return model{
		name:    "Gilbert",
		packet:  &v1.Packet{LossGemodel: &v1.GilbertElliott{P: 100 * p, R: proto.Float64(100 * r)}},
		step:    func(state int, moves, _ float64) (int, bool) { return twoSteps(state, moves, p, r) },
		between: [][]float64{{1 - p, p}, {r, 1 - r}}, lose: []float64{0, 1},
		share: p / (p + r), run: 1 / r,
	}
}

func gilbertElliott() model {
	const p, r, inBad, inGood = 0.02, 0.1, 0.8, 0.005
	good, bad := r/(p+r), p/(p+r)
	share := good*inGood + bad*inBad
	twice := good*inGood*((1-p)*inGood+p*inBad) + bad*inBad*(r*inGood+(1-r)*inBad)
	return model{
		name: "Gilbert-Elliott",
		packet: &v1.Packet{LossGemodel: &v1.GilbertElliott{P: 100 * p, R: proto.Float64(100 * r),
			OneMinusH: proto.Float64(100 * inBad), OneMinusK: proto.Float64(100 * inGood)}},
		step: func(state int, moves, decides float64) (int, bool) {
			next, bad := twoSteps(state, moves, p, r)
			if bad {
				return next, decides < inBad
			}
			return next, decides < inGood
		},
		between: [][]float64{{1 - p, p}, {r, 1 - r}}, lose: []float64{inGood, inBad},
		share: share, run: share / (share - twice), // a run begins with each loss but those after a loss
	}
}

func fourStates() model {
	const p13, p31, p32, p23, p14 = 0.01, 0.2, 0.1, 0.4, 0.005
	gap := 1 / (1 + p14 + p13/p31*(1+p32/p23))
	burst := gap * p13 / p31
	share := burst + gap*p14
	return model{
		name: "4 states",
		packet: &v1.Packet{LossState: &v1.FourState{P13: 100 * p13, P31: proto.Float64(100 * p31), P32: proto.Float64(100 * p32),
			P23: proto.Float64(100 * p23), P14: proto.Float64(100 * p14)}},
		step: func(state int, moves, _ float64) (int, bool) {
			switch state {
			case 0:
				if moves < 1-p13-p14 {
					return 0, false
				}
				if moves < 1-p14 {
					return 2, true
				}
				return 3, true
			case 1:
				if moves < 1-p23 {
					return 1, false
				}
				return 2, true
			case 2:
				if moves < p31 {
					return 0, false
				}
				if moves < p31+p32 {
					return 1, false
				}
				return 2, true
			}
			return 0, false
		},
		between: [][]float64{{1 - p13 - p14, 0, p13, p14}, {0, 1 - p23, p23, 0}, {p31, p32, 1 - p31 - p32, 0}, {1, 0, 0, 0}},
		lose:    []float64{0, 0, 1, 1},
		share:   share, run: share / (gap*(p13+p14) + burst*p32),
	}
}

// wire is a model at work, with the dice that the kernel side throws.
type wire struct {
	model
	seed, packets uint64
	state         int
}

// ingressSalt tells the directions of a rule apart (bpf/loss.h).
const ingressSalt = 0x2545f4914f6cdd1d

func (w *wire) loses() (lost bool) {
	w.packets++
	thrown := w.seed + w.packets*0x9e3779b97f4a7c15 // splitmix64
	thrown = (thrown ^ thrown>>30) * 0xbf58476d1ce4e5b9
	thrown = (thrown ^ thrown>>27) * 0x94d049bb133111eb
	thrown ^= thrown >> 31
	w.state, lost = w.step(w.state, float64(thrown>>32)/(1<<32), float64(uint32(thrown))/(1<<32))
	return lost
}

// losses is how many of so many it loses.
func (w *wire) losses(packets int) (lost int) {
	for range packets {
		if w.loses() {
			lost++
		}
	}
	return lost
}

// spread is the standard deviation of how many of n packets are lost: they are not independent of each other.
func (m model) spread(n int) float64 {
	chances := m.stationary()
	variance := m.share * (1 - m.share)
	after := m.lose // the chance that the k-th packet after one in a state is lost
	for range 10_000 {
		after = m.before(after)
		both := 0.0
		for s, chance := range chances {
			both += chance * m.lose[s] * after[s]
		}
		variance += 2 * (both - m.share*m.share)
	}
	return math.Sqrt(variance * float64(n))
}

// before is what values in a state come to on average one packet earlier.
func (m model) before(values []float64) []float64 {
	earlier := make([]float64, len(values))
	for from, row := range m.between {
		for to, chance := range row {
			earlier[from] += chance * values[to]
		}
	}
	return earlier
}

// stationary is how likely each state is in the long run.
func (m model) stationary() []float64 {
	chances := make([]float64, len(m.lose))
	chances[0] = 1
	for range 10_000 {
		next := make([]float64, len(chances))
		for from, row := range m.between {
			for to, chance := range row {
				next[to] += chances[from] * chance
			}
		}
		chances = next
	}
	return chances
}

// runs are the lengths of the runs of losses.
func runs(fates []bool) (lengths []float64) {
	for i, lost := range fates {
		if lost && (i == 0 || !fates[i-1]) {
			lengths = append(lengths, 0)
		}
		if lost {
			lengths[len(lengths)-1]++
		}
	}
	return lengths
}

func meanAndSpread(values []float64) (mean, spread float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		spread += (v - mean) * (v - mean) / float64(len(values)-1)
	}
	return mean, math.Sqrt(spread)
}

// arrivals are the numbers of the datagrams that arrived.
type arrivals struct {
	address string
	arrived []atomic.Bool
	sum     atomic.Int64
}

func arrive(t *testing.T, packets int) *arrivals {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := forceBuffer(c.(*net.UDPConn), 4<<20); err != nil {
		t.Fatal(err)
	}
	a := &arrivals{address: c.LocalAddr().String(), arrived: make([]atomic.Bool, packets)}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		for buffer := make([]byte, 4); ; {
			if _, _, err := c.ReadFrom(buffer); err != nil {
				return
			}
			a.arrived[binary.BigEndian.Uint32(buffer)].Store(true)
			a.sum.Add(1)
		}
	}()
	return a
}

// fates sends so many packets from a worker of the target while faults run, and says which were lost, and what each fault counted.
func (n *node) fates(w *worker, packets int, specs ...*v1.FaultSpec) (fates []bool, counters []*v1.Counters) {
	n.t.Helper()
	const atOnce = 1000 // as many find room in the receiver's buffer, however slow it is
	a := arrive(n.t, packets)
	var faults []*v1.Fault
	for _, spec := range specs {
		faults = append(faults, n.inject(spec))
	}
	for sent := 0; sent < packets; sent += atOnce {
		w.wants("sent", "number %s %d %d", a.address, sent, min(atOnce, packets-sent))
		counters = nil
		left := min(sent+atOnce, packets)
		for _, f := range faults {
			c := n.settled(f.GetId())
			if c.GetMatched() != uint64(left) {
				n.t.Fatalf("counted %v, want %d matches", c, left)
			}
			counters = append(counters, c)
			left -= int(c.GetInjected())
		}
		n.until("what is not lost arrives", func() bool {
			arrived := a.sum.Load()
			return int(arrived) == min(sent+atOnce, packets)-lostBy(counters)
		})
	}
	for _, f := range faults {
		n.stop(f.GetId())
	}
	for i := range a.arrived {
		fates = append(fates, !a.arrived[i].Load())
	}
	return fates, counters
}

func lostBy(counters []*v1.Counters) (lost int) {
	for _, c := range counters {
		lost += int(c.GetInjected())
	}
	return lost
}

// lossPackets is how many packets show what a model does.
func lossPackets() int { return threads * int(throws()) }

func seeded(t cgroup.Target, packet *v1.Packet, seed uint64) *v1.FaultSpec {
	packet = proto.CloneOf(packet)
	packet.Protocol = "udp"
	if packet.GetDirection() == "" {
		packet.Direction = "egress"
	}
	spec := lose(t, packet)
	spec.Seed = &seed
	return spec
}

// TestModelsLoseThesePackets: with a seed exactly those packets are lost that the model says, and they are as many, and as many in a
// row, as it promises.
func TestModelsLoseThesePackets(t *testing.T) {
	kernels.OnOldest(t)
	const seed = 20
	n := startNode(t)
	target := n.target()
	w, sibling := n.worker(target), n.worker(n.target())
	n.inject(lose(n.target(), &v1.Packet{Loss: 1, Direction: "ingress"})) // keeps the programs loaded
	packets := lossPackets()
	for _, m := range models() {
		t.Run(m.name, func(t *testing.T) {
			fates, _ := n.fates(w, packets, seeded(target, m.packet, seed))
			reference := &wire{model: m, seed: seed}
			for i, lost := range fates {
				if lost != reference.loses() {
					t.Fatalf("packet %d: lost %v, which the model does not say", i, lost)
				}
			}
			lengths := runs(fates)
			run, spread := meanAndSpread(lengths)
			share, bound := run*float64(len(lengths))/float64(packets), 5*m.spread(packets)/float64(packets)
			t.Logf("lost %.4f, should be %.4f; in a row %.3f, should be %.3f", share, m.share, run, m.run)
			if math.Abs(share-m.share) > bound {
				t.Errorf("lost were %v, it must be %v within %v", share, m.share, bound)
			}
			if bound := 5 * spread / math.Sqrt(float64(len(lengths))); math.Abs(run-m.run) > bound {
				t.Errorf("lost in a row were %v, it must be %v within %v", run, m.run, bound)
			}
		})
	}
	udp := receive(t, "127.0.0.1:0")
	sibling.wants("map[ok:100]", "send %s 100 1", udp.address)
	w.wants("map[ok:100]", "send %s 100 1", udp.address)
	n.until("of siblings, and afterwards, all arrive", func() bool { return udp.count() == 200 })
}

// TestModelsOnManyProcessors: what is sent at once from many threads moves a chain on packet by packet.
func TestModelsOnManyProcessors(t *testing.T) {
	kernels.OnHost(t)
	const seed = 21
	n, nobody := startNode(t), sink(t, "127.0.0.1:0")
	target := n.target()
	w := n.worker(target)
	n.inject(lose(n.target(), &v1.Packet{Loss: 1, Direction: "ingress"})) // keeps the programs loaded
	for _, m := range models() {
		f := n.inject(seeded(target, m.packet, seed))
		w.wants(fmt.Sprintf("map[ok:%d]", threads*throws()), "send %s %d %d", nobody, throws(), threads)
		c := n.settled(f.GetId())
		n.stop(f.GetId())
		want := (&wire{model: m, seed: seed}).losses(lossPackets())
		if c.GetInjected() != uint64(want) || c.GetMatched() != threads*throws() {
			t.Errorf("%s: counted %v, want %d lost", m.name, c, want)
		}
	}
}

// TestModelsByDirection: egress and ingress are two wires. The target sends to itself.
func TestModelsByDirection(t *testing.T) {
	kernels.OnOldest(t)
	const seed, packets = 22, 200 // a socket has room for 250
	n := startNode(t)
	target := n.target()
	w, hearer := n.worker(target), n.worker(target)
	address := hearer.do("hear 127.0.0.1:0")
	m := gilbertElliott()
	m.packet.Direction = "both"
	f := n.inject(seeded(target, m.packet, seed))
	w.wants(fmt.Sprintf("map[ok:%d]", packets), "send %s %d 1", address, packets)
	out := (&wire{model: m, seed: seed}).losses(packets)
	in := (&wire{model: m, seed: seed ^ ingressSalt}).losses(packets - out)
	n.until("all were decided", func() bool { return n.get(f.GetId()).GetCounters().GetMatched() == uint64(2*packets-out) })
	if c := n.settled(f.GetId()); c.GetInjected() != uint64(out+in) || in == 0 || out == 0 {
		t.Errorf("counted %v, want %d lost on the way out and %d on the way in", c, out, in)
	}
	hearer.wants(fmt.Sprint(packets-out-in), "heard")
}

// TestLossCombines: what skip_first, every_nth and max_hits spare does not come to the dice or chain, or comes to nothing.
func TestLossCombines(t *testing.T) {
	kernels.OnHost(t)
	const seed, packets = 23, 3000
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	n.inject(lose(n.target(), &v1.Packet{Loss: 1, Direction: "ingress"})) // keeps the programs loaded
	every := seeded(target, &v1.Packet{Loss: 100}, seed)
	every.EveryNth = 10
	fates, _ := n.fates(w, 100, every)
	for i, lost := range fates {
		if lost != (i%10 == 9) {
			t.Errorf("every tenth: packet %d was lost: %v", i, lost)
		}
	}
	for _, m := range models() {
		spec := seeded(target, m.packet, seed)
		spec.SkipFirst, spec.EveryNth, spec.MaxHits = 7, 2, 10
		reference, hits := &wire{model: m, seed: seed}, 0
		fates, _ := n.fates(w, packets, spec)
		for i, lost := range fates {
			want := i >= 7 && (i-7)%2 == 1 && reference.loses() && hits < 10
			if want {
				hits++
			}
			if lost != want {
				t.Fatalf("%s: packet %d was lost: %v", m.name, i, lost)
			}
		}
		if hits != 10 {
			t.Errorf("%s: there were %d hits", m.name, hits)
		}
	}
}

// TestModelsWithoutSeed decide otherwise each time.
func TestModelsWithoutSeed(t *testing.T) {
	kernels.OnHost(t)
	const packets = 1000
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	n.inject(lose(n.target(), &v1.Packet{Loss: 1, Direction: "ingress"})) // keeps the programs loaded
	spec := seeded(target, &v1.Packet{Loss: 50, LossCorrelation: 50}, 0)
	spec.Seed = nil
	first, _ := n.fates(w, packets, spec)
	if second, _ := n.fates(w, packets, spec); slices.Equal(first, second) {
		t.Error("the same packets were lost twice")
	}
}

// TestTwoPacketFaults: the older decides first, what it loses does not come to the newer, and what they count adds up.
func TestTwoPacketFaults(t *testing.T) {
	kernels.OnHost(t)
	const packets = 3000
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	older, newer := &wire{model: gilbertElliott(), seed: 1}, &wire{model: bursts(), seed: 2}
	fates, counters := n.fates(w, packets, seeded(target, older.packet, older.seed), seeded(target, newer.packet, newer.seed))
	for i, lost := range fates {
		if lost != (older.loses() || newer.loses()) {
			t.Fatalf("packet %d was lost: %v", i, lost)
		}
	}
	first, second := counters[0], counters[1]
	if first.GetInjected() == 0 || second.GetInjected() == 0 || first.GetEvaluated() != packets || second.GetEvaluated() != packets {
		t.Errorf("counted %v and %v", first, second)
	}
}
