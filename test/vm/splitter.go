package main

import (
	"bytes"
	"io"
)

// A splitter separates frames from the programs' output. Output goes to out as soon as it is clear
// that it is none of a frame, frames go to frame without prefix and line feed.
type splitter struct {
	prefix []byte // non-empty
	out    io.Writer
	frame  func(text string)
	held   []byte // a frame or the beginning of one
}

// Write takes output as it comes, cut anywhere. Its errors are out's.
func (s *splitter) Write(p []byte) (int, error) {
	s.held = append(s.held, p...)
	for {
		start := bytes.Index(s.held, s.prefix)
		if start < 0 {
			keep := partialPrefix(s.held, s.prefix)
			return len(p), s.release(len(s.held) - keep)
		}
		if err := s.release(start); err != nil {
			return 0, err
		}
		end := bytes.IndexByte(s.held, '\n')
		if end < 0 {
			return len(p), nil
		}
		text := string(s.held[len(s.prefix):end])
		s.held = append(s.held[:0], s.held[end+1:]...)
		s.frame(text)
	}
}

// flush writes what is held although it may be half a frame: the guest died in the middle of it.
func (s *splitter) flush() error { return s.release(len(s.held)) }

func (s *splitter) release(n int) error {
	if n == 0 {
		return nil
	}
	_, err := s.out.Write(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return err
}

// partialPrefix returns how many bytes at the end of data may be the beginning of prefix.
func partialPrefix(data, prefix []byte) int {
	for n := min(len(data), len(prefix)-1); n > 0; n-- {
		if bytes.HasSuffix(data, prefix[:n]) {
			return n
		}
	}
	return 0
}
