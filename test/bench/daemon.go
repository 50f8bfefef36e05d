package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/bpf"
)

// daemon is a `faultd serve` of our own, with a socket, state and kill switch of its own.
type daemon struct {
	cmd    *exec.Cmd
	client faultdv1alpha1connect.FaultServiceClient
	ctx    context.Context
	pinDir string
	socket string
	log    string
}

// startDaemon starts one; config has lines of its configuration beside the usual ones.
func (b *bench) startDaemon(config ...string) (*daemon, error) {
	file := filepath.Join(b.dir, "faultd.yaml")
	usual := "environment: bench\nproduction: false\nlimits: {maxFaults: 1000, maxTargets: 1000}\n"
	if err := os.WriteFile(file, []byte(usual+strings.Join(config, "\n")), 0o600); err != nil {
		return nil, fmt.Errorf("write the daemon's configuration: %w", err)
	}
	d := &daemon{ctx: b.ctx, pinDir: filepath.Join("/sys/fs/bpf", b.name), socket: filepath.Join(b.dir, "s"), log: filepath.Join(b.dir, "log")}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, fmt.Errorf("make the daemon's log: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(b.options.faultd, "--socket", d.socket, "serve", "--state-dir", filepath.Join(b.dir, "state"), "--pin-dir", d.pinDir, "--config", file)
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	d.client = api.NewClient(d.socket)
	err = poll(func() bool {
		_, err := d.client.List(d.ctx, connect.NewRequest(&v1.ListRequest{}))
		return err == nil || d.ctx.Err() != nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the daemon: %w\n%s", err, d.lastWords()), end(d.cmd))
	}
	return d, nil
}

// stop ends the daemon and takes its kill switch away.
func (d *daemon) stop() error {
	return errors.Join(end(d.cmd), bpf.RemoveSwitch(d.pinDir))
}

// withDaemon runs f beside a daemon.
func (b *bench) withDaemon(f func(*daemon) error, config ...string) error {
	d, err := b.startDaemon(config...)
	if err != nil {
		return err
	}
	err = f(d)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, d.lastWords())
	}
	return errors.Join(err, d.stop())
}

// lastWords are the last lines of the daemon's log.
func (d *daemon) lastWords() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (d *daemon) inject(spec *v1.FaultSpec) (*v1.Fault, error) {
	response, err := d.client.Inject(d.ctx, connect.NewRequest(&v1.InjectRequest{Spec: spec}))
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	return response.Msg.GetFault(), nil
}

// mechanism says how this kernel would do it; refused says why it would not.
func (d *daemon) mechanism(spec *v1.FaultSpec) (mechanism, refused string, err error) {
	response, err := d.client.Inject(d.ctx, connect.NewRequest(&v1.InjectRequest{Spec: spec, DryRun: true}))
	if connect.CodeOf(err) == connect.CodeUnimplemented && err != nil {
		return "", strings.TrimPrefix(err.Error(), "unimplemented: "), nil
	}
	if err != nil {
		return "", "", fmt.Errorf("inject, dry: %w", err)
	}
	return response.Msg.GetFault().GetMechanism(), "", nil
}

// mechanism is that of a fault; false: the daemon refuses it, which the report says of what.
func (b *bench) mechanism(d *daemon, what string, spec *v1.FaultSpec) (mechanism string, ok bool, err error) {
	mechanism, refused, err := d.mechanism(spec)
	if err == nil && refused != "" {
		b.report.missing(what, refused)
	}
	return mechanism, err == nil && refused == "", err
}

func (d *daemon) get(id string) (*v1.Fault, error) {
	response, err := d.client.Get(d.ctx, connect.NewRequest(&v1.GetRequest{Id: id}))
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	return response.Msg.GetFault(), nil
}

func (d *daemon) stopAll() error {
	if _, err := d.client.StopAll(d.ctx, connect.NewRequest(&v1.StopAllRequest{})); err != nil {
		return fmt.Errorf("stop all: %w", err)
	}
	return nil
}

func (d *daemon) kill() error {
	if _, err := d.client.Kill(d.ctx, connect.NewRequest(&v1.KillRequest{Reason: "bench"})); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

// rearm ends what a kill has made harmless, and arms again.
func (d *daemon) rearm() error {
	err := d.kill()
	if _, armErr := d.client.Arm(d.ctx, connect.NewRequest(&v1.ArmRequest{Reason: "bench"})); armErr != nil {
		err = errors.Join(err, fmt.Errorf("arm: %w", armErr))
	}
	return err
}

// injecting is what takeTurns turns on and off: faults that end together.
func (d *daemon) injecting(specs ...*v1.FaultSpec) hooking {
	return func() (func() error, error) { return d.stopAll, d.injectAll(specs...) }
}

func (d *daemon) injectAll(specs ...*v1.FaultSpec) error {
	for _, spec := range specs {
		if _, err := d.inject(spec); err != nil {
			return err
		}
	}
	return nil
}

// duration is longer than any section takes.
const duration = "10m"

func connectFault(target string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Connect{Connect: &v1.Connect{Errno: "EHOSTDOWN"}}}
}

func packetFault(target string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Packet{Packet: &v1.Packet{Loss: 100, Direction: "both"}}}
}

func delayFault(target string, delay time.Duration, calls ...string) *v1.FaultSpec {
	return &v1.FaultSpec{Target: "cgroup:" + target, Duration: duration,
		Kind: &v1.FaultSpec_Syscall{Syscall: &v1.Syscall{Calls: calls, Delay: delay.String()}}}
}

// delayable is a call that this kernel can put to sleep, by the mechanism given; "" if there is none.
func (d *daemon) delayable(target string) (call, mechanism string, err error) {
	for _, call := range []string{"getppid", "openat"} {
		mechanism, refused, err := d.mechanism(delayFault(target, time.Millisecond, call))
		if err != nil || refused == "" {
			return call, mechanism, err
		}
	}
	return "", "", nil
}
