package guest

import (
	"fmt"
	"strings"
)

// frameMark begins every frame: ASCII's record separator, rare in test output.
const frameMark = "\x1e"

// What a frame can say. Each word is followed by the arguments named here.
const (
	FrameBoot  = "boot"  // <number of this boot>: the guest is up, programs start now
	FrameExit  = "exit"  // <index of the program> <exit code>
	FrameDone  = "done"  // all programs have exited
	FrameError = "error" // <text>: the guest cannot do what the plan says
)

// Frame encodes one frame. It may stand anywhere in the output, also in the middle of a line.
func Frame(nonce, word string, args ...any) string {
	text := fmt.Sprintln(append([]any{word}, args...)...)
	return FramePrefix(nonce) + strings.ReplaceAll(strings.TrimSpace(text), "\n", " ") + "\n"
}

// FramePrefix is what all frames of this nonce begin with; they end with a line feed.
func FramePrefix(nonce string) string { return frameMark + nonce + " " }
