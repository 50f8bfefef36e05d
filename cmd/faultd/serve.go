package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/daemon"
	"faultd/guard"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the daemon, until SIGTERM, SIGINT or SIGHUP",
		Flags: []cli.Flag{
			stateDirFlag(), pinDirFlag(),
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE`", DefaultText: daemon.DefaultConfigFile + ", if it is there"},
			&cli.DurationFlag{Name: "lease", Usage: "how long faults outlive a daemon that is stopped or hangs", Value: 3 * time.Second},
			&cli.StringFlag{Name: "metrics-listen", Usage: "TCP `ADDR` for /metrics; none: only on the socket"},
		},
		Action: serve,
	}
}

// garbage is how much of the heap may be garbage, in percent of what is in use. It keeps the daemon small: most of its memory is the kernel's types and
// the schema's rules, which stay. With a limit (debug.SetMemoryLimit) it would collect all the time once these alone come near it.
const garbage = 20

func serve(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	if uid := os.Geteuid(); uid != 0 {
		return exitError{exitNotPermitted, fmt.Errorf("start the daemon: it must run as root, and this is uid %d", uid)}
	}
	if err := cgroup.EnterHostNamespace(); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go, and the daemon stays
	log := newLog(c.App.ErrWriter)
	slog.SetDefault(log) // what watches the guard writes there
	debug.SetGCPercent(garbage)
	config, err := daemon.ReadConfig(configFile(c))
	if err != nil {
		return exitError{exitUsage, err}
	}
	options := daemon.Options{
		Socket: c.String("socket"), StateDir: c.String("state-dir"), PinDir: c.String("pin-dir"),
		MetricsListen: c.String("metrics-listen"), Lease: c.Duration("lease"), Config: config,
		Log:        log,
		Ready:      func() { notify(systemd.SdNotifyReady) },
		Alive:      watchdog(),
		Rest:       giveMemoryBack,
		StartGuard: startGuard,
	}
	if err := options.Check(); err != nil {
		return exitError{exitUsage, err}
	}
	d, err := daemon.New(options)
	if err != nil {
		return err
	}
	defer context.AfterFunc(c.Context, func() { notify(systemd.SdNotifyStopping) })()
	return d.Run(c.Context)
}

// configFile is the one that was named, or the default one if it is there, or "".
func configFile(c *cli.Context) string {
	if c.IsSet("config") {
		return c.String("config")
	}
	if _, err := os.Stat(daemon.DefaultConfigFile); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return daemon.DefaultConfigFile
}

func startGuard(ctx context.Context, k *bpf.Kernel, stateDir, cgroupDir string) (daemon.Guard, error) {
	return guard.Start(ctx, guard.Options{Kernel: k, StateDir: stateDir, CgroupDir: cgroupDir})
}

// newLog writes text on a terminal and JSON elsewhere.
func newLog(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return slog.New(slog.NewTextHandler(w, nil))
		}
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}

// notify tells systemd, where it is there (sd_notify(3)); without it, nothing happens.
func notify(state string) {
	_, _ = systemd.SdNotify(false, state)
}

// watchdog gives what the main loop calls: it tells systemd's watchdog at half its interval.
func watchdog() func() {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil
	}
	var last time.Time
	return func() {
		if now := time.Now(); now.Sub(last) >= interval/2 {
			notify(systemd.SdNotifyWatchdog)
			last = now
		}
	}
}
