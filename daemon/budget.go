package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// budgetName is the file of the state directory that says how long faults were on today.
const budgetName = "day"

// budget counts the time of a day during which a fault is on, across restarts. A crash costs it the last second.
type budget struct {
	// limit is that of a day; a whole day is none, and nothing is counted.
	limit time.Duration
	zone  *time.Location
	path  string

	spent
	// since is when it was last looked at with a fault on; zero: none was.
	since time.Time
	saved time.Time
	// saving is held while the file is written, beside the main loop; written is what is in it.
	saving  sync.Mutex
	written spent
}

// spent is what is in the file.
type spent struct {
	Day  string        `json:"day"`
	Used time.Duration `json:"usedNanoseconds"`
}

// newBudget reads how much of today is spent already. A file that cannot be read is an error: it might say that nothing is left.
func newBudget(stateDir string, limit time.Duration, zone *time.Location) (*budget, error) {
	b := &budget{limit: limit, zone: zone, path: filepath.Join(stateDir, budgetName)}
	if b.free() {
		return b, nil
	}
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		b.spent, err = readSpent(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read how long faults were on today: %w; if nothing is left to be kept, remove %s", err, b.path)
	}
	return b, nil
}

// longestDay is that on which clocks are set back.
const longestDay = 25 * time.Hour

// readSpent refuses all that save does not write: what is left out would count as nothing spent.
func readSpent(text []byte) (s spent, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, err
	}
	if decoder.More() {
		return s, errors.New("something stands behind the object")
	}
	if _, err := time.Parse(time.DateOnly, s.Day); err != nil {
		return s, fmt.Errorf("day: %q is no date", s.Day)
	}
	if s.Used < 0 || s.Used > longestDay {
		return s, fmt.Errorf("usedNanoseconds: %d is out of range; it must be in 0..%d", s.Used, longestDay)
	}
	return s, nil
}

func (b *budget) free() bool { return b.limit >= wholeDay }

// tick counts the time since the last one if a fault was on, and says whether the file is due.
func (b *budget) tick(now time.Time, on bool) (due bool) {
	if b.free() {
		return false
	}
	if day := now.In(b.zone).Format(time.DateOnly); day != b.Day {
		b.spent = spent{Day: day}
	}
	was := !b.since.IsZero()
	if was {
		b.Used += now.Sub(b.since)
	}
	if b.since = now; !on {
		b.since = time.Time{}
	}
	if was && (!on || now.Sub(b.saved) >= time.Second) {
		b.saved = now
		return true
	}
	return false
}

// admit refuses what would use up more than the day has, if it, and what is on, goes on until then.
func (b *budget) admit(now, until time.Time) error {
	if b.free() {
		return nil
	}
	b.tick(now, !b.since.IsZero())
	if left := b.limit - b.Used; until.Sub(now) > left {
		return notAllowed("limits.perDay: faults were on for %s of %s today, %s would be too long; it begins anew at midnight %s",
			b.Used.Round(time.Second), b.limit, until.Sub(now).Round(time.Second), b.zone)
	}
	return nil
}

// save replaces the file. It does not wait for the disk.
func (b *budget) save(s spent) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	if s.Day == b.written.Day && s.Used < b.written.Used {
		return nil // it was overtaken
	}
	b.written = s
	text, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(b.path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(b.path+".new", b.path)
	}
	if err != nil {
		return fmt.Errorf("write down how long faults were on today: %w", err)
	}
	return nil
}
