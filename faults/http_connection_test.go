package faults

import (
	"net"
	"testing"
	"time"
)

// pair is a TCP connection, by its two ends.
func pair(t *testing.T) (one, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); accepted.Close() })
	return c.(*net.TCPConn), accepted.(*net.TCPConn)
}

// TestServersThatSpeakFirst: a server of HTTP/2 tells its settings as soon as somebody connects, and is no stranger for that.
func TestServersThatSpeakFirst(t *testing.T) {
	const settings = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
	for name, c := range map[string]struct {
		said []string
		want bool
	}{
		"settings":             {[]string{settings}, false},
		"no settings":          {[]string{"\x00\x00\x00\x04\x00\x00\x00\x00\x00"}, false},
		"settings, in parts":   {[]string{settings[:1], settings[1:5], settings[5:]}, false},
		"acknowledged":         {[]string{"\x00\x00\x00\x04\x01\x00\x00\x00\x00"}, true},
		"another frame":        {[]string{"\x00\x00\x08\x06\x00\x00\x00\x00\x00"}, true},
		"a greeting":           {[]string{"220 mail ready\r\n"}, true},
		"MySQL":                {[]string{"\x4a\x00\x00\x00\x0a8.0.36"}, true},
		"a part, then another": {[]string{settings[:4], "\x09"}, true},
		"nothing, it closes":   {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			up, server := pair(t)
			go func() {
				for _, part := range c.said {
					_, _ = server.Write([]byte(part))
				}
				if c.said == nil {
					_ = server.Close()
				}
			}()
			if got := speaksFirst(up); got != c.want {
				t.Errorf("it speaks first: %v, want %v", got, c.want)
			}
		})
	}
	up, _ := pair(t)
	_ = up.SetReadDeadline(time.Unix(1, 0))
	if speaksFirst(up) {
		t.Error("a silent server speaks first")
	}
}
