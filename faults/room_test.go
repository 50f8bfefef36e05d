package faults

import (
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// garbagePercent is what the runtime goes by now.
func garbagePercent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestRoomForGarbage: there is more while somebody serves, and then as much as before.
func TestRoomForGarbage(t *testing.T) {
	const usual = 20
	defer debug.SetGCPercent(debug.SetGCPercent(usual))
	var r garbageRoom
	one, two := r.more(), r.more()
	for _, step := range []struct {
		what string
		do   func()
		want uint64
	}{
		{"two serve", func() {}, whileServing},
		{"one has gone", one, whileServing},
		{"the same once more", one, whileServing},
		{"the other has, too", two, usual},
		{"there is another", func() { one = r.more() }, whileServing},
		{"who has gone", func() { one() }, usual},
	} {
		step.do()
		if got := garbagePercent(); got != step.want {
			t.Errorf("%s: %d %%, want %d", step.what, got, step.want)
		}
	}
}
