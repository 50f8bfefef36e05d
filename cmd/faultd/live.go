package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"faultd/experiment"
)

// redrawn is how often a live view is drawn.
const redrawn = 250 * time.Millisecond

// What a terminal is told.
const (
	eraseBelow = "\x1b[J"
	bold       = "\x1b[1m"
	red        = "\x1b[31m"
	green      = "\x1b[32m"
	quiet      = "\x1b[2m"
	usual      = "\x1b[0m"
)

// live shows a run in a terminal: what happens goes up, and how it stands is below.
type live struct {
	out     io.Writer
	columns func() int

	mu sync.Mutex
	// frame is what stands below, and can be taken away again.
	frame []string
	over  chan struct{}
	drawn sync.WaitGroup
}

// columnsOf is how wide a terminal is; ok is whether it is one that can be drawn on.
func columnsOf(out io.Writer) (columns func() int, ok bool) {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil, false
	}
	columns = func() int {
		size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
		if err != nil || size.Col == 0 {
			return 80
		}
		return int(size.Col)
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return columns, err == nil
}

// watch draws until close.
func (l *live) watch(status func() experiment.Status) {
	l.over = make(chan struct{})
	l.drawn.Go(func() {
		ticker := time.NewTicker(redrawn)
		defer ticker.Stop()
		for {
			// Not with the lock held: tell is called by whom status may wait for.
			now := status()
			l.mu.Lock()
			l.draw("", frameOf(now, l.columns()))
			l.mu.Unlock()
			select {
			case <-l.over:
				return
			case <-ticker.C:
			}
		}
	})
}

// tell writes a line above the frame.
func (l *live) tell(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw(text+"\n", l.frame)
}

// close takes the frame away.
func (l *live) close() {
	if l.over != nil {
		close(l.over)
		l.drawn.Wait()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw("", nil)
}

// draw writes text in the place of the frame, and a frame below it, in one piece. Call with l.mu held.
func (l *live) draw(text string, frame []string) {
	var b strings.Builder
	if n := len(l.frame); n > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", n)
	}
	b.WriteString(eraseBelow + text)
	columns := l.columns()
	for _, line := range frame {
		b.WriteString(cut(line, columns) + "\n")
	}
	_, _ = io.WriteString(l.out, b.String()) // a terminal that is gone has no readers
	l.frame = frame
}

// cut makes a line no longer than a terminal is wide; what it tells the terminal takes no room.
func cut(line string, columns int) string {
	var b strings.Builder
	for room := columns; line != ""; {
		if strings.HasPrefix(line, "\x1b[") {
			end := strings.IndexByte(line, 'm') + 1
			b.WriteString(line[:end])
			line = line[end:]
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		if room > 0 {
			b.WriteString(line[:size])
		}
		room--
		line = line[size:]
	}
	return b.String()
}

// frameOf tells how a run stands. Of the tries of a probe as many of the last ones are drawn as columns leave room for.
func frameOf(s experiment.Status, columns int) []string {
	phase := string(s.Phase)
	if phase == "" {
		phase = "starting"
	}
	lines := []string{fmt.Sprintf("%s%s%s  %s  %s, %s left", bold, plain(s.Name), usual, phase, minutes(s.Since), minutes(s.Left))}
	for _, f := range s.Faults {
		state := quiet + "off" + usual
		if f.On {
			state = red + "on " + usual
		}
		c := f.Counters
		lines = append(lines, fmt.Sprintf("  fault %-24s %s  %d injected, %d matched, %d spared", plain(f.Label), state, c.GetInjected(), c.GetMatched(), c.GetSpared()))
	}
	for _, p := range s.Probes {
		state := green + "holds" + usual
		if p.Why != "" {
			state = red + "fails" + usual
		}
		before, after := fmt.Sprintf("  probe %-24s ", plain(p.Name)), fmt.Sprintf("  p50 %s, %d of %d failed", p.Counts.Milliseconds(p.Counts.P50), p.Counts.Failed, p.Counts.Count)
		room := max(columns-len("holds")-2-utf8.RuneCountInString(before+after), fewestTries)
		lines = append(lines, before+state+"  "+sparkline(p.Last[max(len(p.Last)-room, 0):])+after)
	}
	return append(lines, quiet+"Ctrl-C ends all faults and writes the report; twice ends faultd at once"+usual)
}

// fewestTries are drawn however narrow a terminal is.
const fewestTries = 8

// minutes writes a duration as minutes and seconds.
func minutes(d time.Duration) string {
	seconds := int(d.Round(time.Second).Seconds())
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// sparkline draws how long tries took, the slowest highest; those that failed are crosses.
func sparkline(tries []experiment.Sample) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	slowest := time.Duration(1)
	for _, s := range tries {
		if s.Failure == "" {
			slowest = max(slowest, s.Took)
		}
	}
	var b strings.Builder
	for _, s := range tries {
		if s.Failure != "" {
			b.WriteString(red + "×" + usual)
			continue
		}
		b.WriteRune(bars[int(int64(s.Took)*int64(len(bars)-1)/int64(slowest))])
	}
	return b.String()
}
