package faults

import (
	"runtime/debug"
	"sync"
)

// room is the daemon's for garbage.
var room garbageRoom

// garbageRoom is how much of the heap may be garbage. A daemon that starts faults needs little; where one passes a target's requests on, looking
// for garbage as often took a quarter of them.
type garbageRoom struct {
	mu            sync.Mutex
	users, before int
}

// whileServing is the room meanwhile, in percent of what is in use: Go's own.
const whileServing = 100

// more makes room until the last user has given it back. Giving back twice is fine.
func (r *garbageRoom) more() (giveBack func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == 0 {
		r.before = debug.SetGCPercent(whileServing)
	}
	r.users++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.users--; r.users == 0 {
			debug.SetGCPercent(r.before)
		}
	})
}
