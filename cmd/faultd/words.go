package main

import (
	"io"
	"os"

	"github.com/urfave/cli/v2"
)

// noWords refuses arguments of commands that have none.
func noWords(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("%q is one argument too many", c.Args().First())
	}
	return nil
}

// oneWord gives the one argument of a command; what says what it is.
func oneWord(c *cli.Context, what string) (string, error) {
	switch c.NArg() {
	case 0:
		return "", usageErrorf("%s: missing", what)
	case 1:
		return c.Args().First(), nil
	default:
		return "", usageErrorf("%q is one argument too many", c.Args().Get(1))
	}
}

// needed gives the value of a flag that must be there.
func needed(c *cli.Context, flag string) (string, error) {
	value := c.String(flag)
	if value == "" {
		return "", usageErrorf("--%s: missing", flag)
	}
	return value, nil
}

// maxFile is more than a request to the daemon may have of any file.
const maxFile = 4 << 20

// readFile reads the file that a flag names, which may be a device without an end.
func readFile(flag, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", usageErrorf("--%s: %v", flag, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", usageErrorf("--%s: %v", flag, err)
	}
	if len(text) > maxFile {
		return "", usageErrorf("--%s: %s has more than %d MiB", flag, path, maxFile>>20)
	}
	return string(text), nil
}

// given gives the value of a flag, or nil when it is absent.
func given[T any](c *cli.Context, flag string, value func(string) T) *T {
	if !c.IsSet(flag) {
		return nil
	}
	v := value(flag)
	return &v
}
