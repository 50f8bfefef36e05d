package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// A qmpClient speaks QEMU's machine protocol, one command after the other.
type qmpClient struct {
	w io.Writer
	r *json.Decoder
}

func newQMP(conn io.ReadWriter) (*qmpClient, error) {
	c := &qmpClient{w: conn, r: json.NewDecoder(conn)}
	var greeting map[string]any
	if err := c.r.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("read QEMU's greeting: %w", err)
	}
	return c, c.do("qmp_capabilities", nil)
}

// do runs one command and waits for its answer; events that come in between are dropped.
func (c *qmpClient) do(command string, args map[string]string) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	text, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	if _, err := c.w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := c.r.Decode(&answer); err != nil {
			return fmt.Errorf("read answer to %s: %w", command, err)
		}
		if answer.Error != nil {
			return fmt.Errorf("run %s in QEMU: %s", command, answer.Error.Desc)
		}
		if answer.Return != nil {
			return nil
		}
	}
}

// hardReset does what the reset button does. The machine is run with -no-reboot, so that a panic
// ends it; that is off from here on, because the BIOS may reset once more on its way up, and comes
// back with forbidReboot.
func (c *qmpClient) hardReset() error {
	if err := c.do("set-action", map[string]string{"reboot": "reset"}); err != nil {
		return err
	}
	return c.do("system_reset", nil)
}

// forbidReboot turns all resets from here on into the machine's end.
func (c *qmpClient) forbidReboot() error {
	return c.do("set-action", map[string]string{"reboot": "shutdown"})
}
