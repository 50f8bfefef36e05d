package main

import (
	"errors"
	"fmt"
	"os"

	"faultd/audit"
	"faultd/bpf"
	"faultd/daemon"
)

// node is what the client does on this node itself, without the daemon.
type node struct {
	kill    func(pinDir string) error
	latch   func(stateDir, reason string) error
	arm     func(pinDir, stateDir, reason string) error
	residue func(pinDir, stateDir string) ([]string, error)
	config  func(path string) error
	// audit writes down what was done without the daemon.
	audit func(stateDir, action, reason string) error
}

func thisNode() node {
	return node{killWithoutDaemon, latchWithoutDaemon, armWithoutDaemon, residueWithoutDaemon, checkConfig, auditWithoutDaemon}
}

// killWithoutDaemon stores into the pinned switch: that alone ends all harm.
func killWithoutDaemon(pinDir string) error {
	s, err := bpf.OpenSwitch(pinDir)
	if err != nil {
		return err
	}
	s.Kill()
	return s.Close()
}

// latchWithoutDaemon writes a kill down where the next daemon, also after a reboot, finds it.
func latchWithoutDaemon(stateDir, reason string) error {
	return daemon.Latch(stateDir, reason, fmt.Sprintf("uid=%d pid=%d, without the daemon", os.Getuid(), os.Getpid()))
}

// armWithoutDaemon takes the note of a kill away and arms the pinned switch, if there is one.
func armWithoutDaemon(pinDir, stateDir, _ string) error {
	if err := daemon.Unlatch(stateDir); err != nil {
		return err
	}
	s, err := bpf.OpenSwitch(pinDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Generation() == 0 {
		s.Arm()
	}
	return s.Close()
}

// residueWithoutDaemon lists what faultd left on this node. Call it only when no daemon answers: a living one's maps would be listed.
func residueWithoutDaemon(pinDir, stateDir string) ([]string, error) {
	return daemon.Residue(pinDir, stateDir, false)
}

// auditWithoutDaemon writes down what this process did.
func auditWithoutDaemon(stateDir, action, reason string) error {
	_, err := audit.Append(stateDir, audit.Record{Action: action, Who: audit.Self(), Why: reason, Outcome: "done, without the daemon"})
	return err
}

// checkConfig says what is wrong with a configuration file.
func checkConfig(path string) error {
	if path == "" {
		return fmt.Errorf("check the configuration: no file is named")
	}
	_, err := daemon.ReadConfig(path)
	return err
}
