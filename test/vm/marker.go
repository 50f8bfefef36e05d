package main

import (
	"bytes"
	"io"
)

// A markerWriter passes output on and calls found once, when a line that is exactly marker is
// complete.
type markerWriter struct {
	out    io.Writer
	marker []byte // nil: no more
	found  func()
	line   []byte
}

func (m *markerWriter) Write(p []byte) (int, error) {
	n, err := m.out.Write(p)
	for rest := p; m.marker != nil; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			m.line = append(m.line, rest...)
			break
		}
		m.line = append(m.line, rest[:end]...)
		if bytes.Equal(bytes.TrimRight(m.line, "\r"), m.marker) {
			m.marker = nil
			m.found()
		}
		m.line, rest = m.line[:0], rest[end+1:]
	}
	return n, err
}
