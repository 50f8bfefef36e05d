package undo

import (
	"context"
	"errors"
)

// NodeDown says that the node was about to go down on purpose, and how. Nothing can be taken back: replayed after another boot it is
// Rebooted, and its entry says which fault it was and when; in the same boot the node did not go down.
type NodeDown struct {
	// How is one word, such as "reboot".
	How string `json:"how"`
}

func (n *NodeDown) durable() bool { return false }

func (n *NodeDown) validate() error {
	if n.How == "" {
		return errors.New("tell of a node that goes down: how is missing")
	}
	return nil
}

func (n *NodeDown) undo(context.Context) (Outcome, error) { return AlreadyGone, nil }
