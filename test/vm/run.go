package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"faultd/test/vm/guest"
)

// options say what to run and on what.
type options struct {
	kernel     string
	image      string // to boot as kernel; "" for the one that the runner knows by that name
	programs   []guest.Program
	files      []string // programs of the host to have in the guest, with their libraries
	dirs       []string // directories of the host to have in the guest
	env        []string
	modules    []string // to be there, on top of defaultModules
	append     string   // for the kernel's command line
	mem        string
	accel      string
	icount     bool // guest time follows instructions
	smp        int
	timeout    time.Duration // for the machine, boot included
	persist    string        // disk image for guest.PersistDir
	resetAfter string        // line of output upon which the machine is reset, once
	reboots    int           // how often the machine reboots by itself
	console    string        // file for the console's text
	verbose    bool
	workDir    string
	cacheDir   string
}

// lingering is how long a machine may take to switch itself off after all programs have ended.
const lingering = 20 * time.Second

// errSetup is wrapped by errors that come before there is a machine.
var errSetup = errors.New("set up virtual machine")

// run boots a machine, runs the programs in it and returns the exit code, which is one of the
// programs' or one of ours. Programs' output goes to out, our words to diag.
func run(ctx context.Context, o options, out, diag io.Writer) (int, error) {
	// The machine dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	started := time.Now()
	k, err := chooseKernel(o)
	if err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	if err := checkQEMU(ctx, k.arch); err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	scratch, err := os.MkdirTemp("", "faultd-vm-")
	if err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	defer os.RemoveAll(scratch)
	nonce := rand.Text()
	args, err := prepare(ctx, k, o, nonce, scratch)
	if err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	log, err := openLog(o.console)
	if err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	defer log.Close()

	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	s := &session{o: o, diag: diag, console: &consoleScanner{log: log, mayCrash: o.reboots > 0}, started: started, prepared: time.Now()}
	if err := s.watch(ctx, args, nonce, out); err != nil {
		return exitSetup, fmt.Errorf("%w: %w", errSetup, err)
	}
	return s.verdict(ctx), nil
}

// prepare makes everything the machine needs and returns QEMU's command line.
func prepare(ctx context.Context, k kernel, o options, nonce, scratch string) ([]string, error) {
	root, err := buildImage(ctx, k, o, nonce)
	if err != nil {
		return nil, err
	}
	initramfs, err := writeImage(root, scratch)
	if err != nil {
		return nil, err
	}
	if o.persist != "" {
		if err := makeDisk(ctx, o.persist); err != nil {
			return nil, err
		}
	}
	return qemuArgs(k, initramfs, o), nil
}

// diskSize is the size of a disk image the runner makes; it takes up only what is written.
const diskSize = "256M"

// makeDisk makes an empty ext4 disk image unless there is one.
func makeDisk(ctx context.Context, image string) error {
	if isFile(image) {
		return nil
	}
	if _, err := output(ctx, filepath.Dir(image), "mke2fs", "-q", "-t", "ext4", "-F", image, diskSize); err != nil {
		return fmt.Errorf("make disk image: %w", err)
	}
	return nil
}

func openLog(file string) (*os.File, error) {
	if file == "" {
		file = os.DevNull
	}
	log, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("open console log: %w", err)
	}
	return log, nil
}

// A session is one machine's life as we see it.
type session struct {
	o       options
	diag    io.Writer
	console *consoleScanner
	result  outcome
	qemu    string      // QEMU's own last words
	stuck   atomic.Bool // the machine did not switch itself off

	started, prepared, booted, ended time.Time
}

// watch starts the machine and follows it to its end. One whose programs may end a boot is switched on again when they have switched it off.
func (s *session) watch(ctx context.Context, args []string, nonce string, out io.Writer) error {
	for before := -1; ; {
		if err := s.follow(ctx, args, nonce, out); err != nil {
			return err
		}
		over := s.result.done || s.result.fault != "" || s.result.boot > s.o.reboots || s.console.failed()
		if over || ctx.Err() != nil || s.result.boot == before { // a boot that did not come up is the last
			return nil
		}
		before = s.result.boot
	}
}

// follow starts the machine and follows it until it is off. After it, the session knows all that came out.
func (s *session) follow(ctx context.Context, args []string, nonce string, out io.Writer) error {
	m, err := startMachine(ctx, args)
	if err != nil {
		return err
	}
	defer m.close()
	control, err := newQMP(m.qmp)
	if err != nil {
		m.close()
		return fmt.Errorf("%w: %s", err, m.errs.String())
	}
	split := &splitter{prefix: []byte(guest.FramePrefix(nonce)), out: s.outputWriter(out, control)}
	split.frame = func(text string) { s.frame(m, control, text) }
	var readers sync.WaitGroup
	readers.Go(func() { io.Copy(s.console, m.console) })
	readers.Go(func() { io.Copy(split, m.output) })
	<-m.exited
	readers.Wait()
	s.ended = time.Now()
	s.console.flush()
	split.flush()
	s.qemu = m.errs.String()
	return nil
}

// outputWriter looks for the line that asks for a reset, if one does.
func (s *session) outputWriter(out io.Writer, control *qmpClient) io.Writer {
	if s.o.resetAfter == "" {
		return out
	}
	return &markerWriter{out: out, marker: []byte(s.o.resetAfter), found: func() {
		if err := control.hardReset(); err != nil {
			fmt.Fprintln(s.diag, "vm:", err)
		}
	}}
}

func (s *session) frame(m *machine, control *qmpClient, text string) {
	boot := s.result.boot
	if err := s.result.frame(text); err != nil {
		fmt.Fprintln(s.diag, "vm:", err)
	}
	if s.booted.IsZero() {
		s.booted = time.Now()
	}
	if boot > 0 && s.result.boot > max(boot, s.o.reboots) {
		if err := control.forbidReboot(); err != nil {
			fmt.Fprintln(s.diag, "vm:", err)
		}
	}
	if s.result.done {
		go s.awaitPowerOff(m)
	}
}

// awaitPowerOff gives the machine time to switch itself off.
func (s *session) awaitPowerOff(m *machine) {
	select {
	case <-m.exited:
	case <-time.After(lingering):
		s.stuck.Store(true)
		m.stop()
	}
}

// verdict says what went wrong, if anything, and chooses the exit code. The kernel's complaints
// come before all else: with a broken kernel, nothing a program says counts.
func (s *session) verdict(ctx context.Context) int {
	if s.o.verbose {
		s.timing()
	}
	code, reason := s.judge(ctx)
	if reason != "" {
		fmt.Fprintf(s.diag, "vm: kernel %s: %s\n", s.o.kernel, reason)
	}
	switch {
	case s.console.failed():
		fmt.Fprintf(s.diag, "vm: kernel %s: %s", s.o.kernel, s.console.report())
		return exitSplat
	case reason != "":
		fmt.Fprint(s.diag, s.qemu, s.console.tail())
	}
	return code
}

// judge chooses the exit code for what came over the output port, and gives a reason for a code
// that is not the programs'.
func (s *session) judge(ctx context.Context) (code int, reason string) {
	r := &s.result
	switch {
	case r.fault != "":
		return exitSetup, "set up guest: " + r.fault
	case !r.done && ctx.Err() != nil:
		return exitTimeout, fmt.Sprintf("stopped: %v (limit %s)", ctx.Err(), s.o.timeout)
	case !r.done:
		return exitDied, "machine ended before its programs did"
	case s.stuck.Load():
		return exitDied, fmt.Sprintf("machine did not switch itself off within %s", lingering)
	case r.boot <= s.o.reboots:
		return exitDied, fmt.Sprintf("the machine booted %d times and not %d", r.boot, s.o.reboots+1)
	case s.o.resetAfter != "" && r.boot < 2:
		return exitDied, fmt.Sprintf("line %q never came, so there was no reset", s.o.resetAfter)
	}
	return r.firstFailure(), ""
}

func (s *session) timing() {
	seconds := func(from, to time.Time) string {
		if to.IsZero() {
			return "never"
		}
		return fmt.Sprintf("%.1f s", to.Sub(from).Seconds())
	}
	fmt.Fprintf(s.diag, "vm: kernel %s: prepared in %s, up after %s, over after %s, exit codes %v\n", s.o.kernel,
		seconds(s.started, s.prepared), seconds(s.prepared, s.booted), seconds(s.prepared, s.ended), s.result.codes)
}
