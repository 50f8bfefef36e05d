package experiment

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
)

// logProbe counts new lines of a file that match.
type logProbe struct {
	path  string
	match *regexp.Regexp
	// absent: no line may match.
	absent bool
	// file is open while the probe asks, so that what was written before another took its place is read too.
	file *os.File
	// unended is the beginning of a line whose end is not written yet.
	unended string
}

func (d *document) logProbe(field string, m *v1.LogProbe, t Tolerance) check {
	p := &logProbe{path: m.GetPath(), absent: !t.ofValue()}
	var err error
	if p.match, err = regexp.Compile(m.GetMatch()); err != nil {
		d.wrong(field+".match", "%q is no regular expression: %v", m.GetMatch(), err)
	}
	return p
}

// begin opens the file at its end: what was written before a phase is not of it.
func (p *logProbe) begin() {
	p.end()
	p.unended = ""
	if p.file, _ = os.Open(p.path); p.file != nil { // the try says why not
		_, _ = p.file.Seek(0, io.SeekEnd)
	}
}

func (p *logProbe) end() {
	if p.file != nil {
		p.file.Close()
	}
	p.file = nil
}

// maxLog bounds what a try reads, so that a flood does not hold it; the next one goes on there.
const maxLog = 4 << 20

func (p *logProbe) ask(context.Context, Counters) (string, error) {
	count, first, err := p.newLines()
	if err != nil {
		return "", fmt.Errorf("follow the log: %w", err)
	}
	if count > 0 && p.absent {
		return fmt.Sprint(count), fmt.Errorf("%d new lines match %s; the first: %s", count, p.match, brief(first))
	}
	return fmt.Sprint(count), nil
}

func (p *logProbe) newLines() (count int, first string, err error) {
	there, err := os.Stat(p.path)
	if err != nil {
		return 0, "", err
	}
	if p.file == nil {
		if p.file, err = os.Open(p.path); err != nil {
			return 0, "", err
		}
	}
	if err := p.rewindIfCut(); err != nil {
		return 0, "", err
	}
	if count, first, err = p.read(); err != nil {
		return 0, "", err
	}
	if ours, err := p.file.Stat(); err != nil || os.SameFile(ours, there) {
		return count, first, err
	}
	p.end()
	p.unended = ""
	if p.file, err = os.Open(p.path); err != nil {
		return 0, "", err
	}
	more, firstOfMore, err := p.read()
	if count == 0 {
		first = firstOfMore
	}
	return count + more, first, err
}

// rewindIfCut goes to the beginning of a file that was emptied.
func (p *logProbe) rewindIfCut() error {
	stat, err := p.file.Stat()
	if err != nil {
		return err
	}
	at, err := p.file.Seek(0, io.SeekCurrent)
	if err == nil && stat.Size() < at {
		p.unended = ""
		_, err = p.file.Seek(0, io.SeekStart)
	}
	return err
}

// read counts the lines up to the end of the file. A line counts once its end is written.
func (p *logProbe) read() (count int, first string, err error) {
	lines := bufio.NewReader(io.LimitReader(p.file, maxLog))
	for {
		line, err := lines.ReadString('\n')
		line = p.unended + line
		if errors.Is(err, io.EOF) {
			p.unended = line[:min(len(line), maxValue)]
			return count, first, nil
		}
		if err != nil {
			return count, first, err
		}
		p.unended = ""
		if line = strings.TrimRight(line, "\r\n"); !p.match.MatchString(line) {
			continue
		}
		if count++; count == 1 {
			first = line
		}
	}
}
