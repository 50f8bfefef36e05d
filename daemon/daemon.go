// Package daemon keeps faults alive for as long as they may be, and tells people about them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/audit"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/container"
	"faultd/faults"
	"faultd/undo"
)

// DefaultStateDir is where journal and latch are.
const DefaultStateDir = "/var/lib/faultd"

// Options say how the daemon is run.
type Options struct {
	Socket        string
	StateDir      string
	PinDir        string
	MetricsListen string
	Lease         time.Duration
	Config        Config
	Log           *slog.Logger
	// StartGuard starts the process beside the daemon that holds sleepers and undoes; nil: there is none.
	StartGuard func(ctx context.Context, kernel *bpf.Kernel, stateDir, cgroupDir string) (Guard, error)
	// DisableMechanisms is for tests.
	DisableMechanisms []string
	// Ready is called once everything is bound.
	Ready func()
	// Alive is called by the main loop, for a watchdog.
	Alive func()
	// Rest is called, beside the main loop, some time after something has begun or ended.
	Rest func()
}

// Guard is what the daemon needs of the guard.
type Guard interface {
	// CanSleep says why delays that sleep cannot be applied, or nil.
	CanSleep() error
	// Watch replaces a guard that is gone or stopped, until ctx ends.
	Watch(ctx context.Context)
	Close() error
}

// Daemon owns the active set.
type Daemon struct {
	options Options
	config  Config
	log     *slog.Logger
	env     faults.Env
	events  hub
	woken   chan struct{}
	// looped is when the main loop ended its last round (bpf.Monotonic).
	looped  atomic.Int64
	before  before
	lock    *os.File
	pins    *os.File // locked
	guard   Guard
	unwatch context.CancelFunc
	watched sync.WaitGroup
	// closing are the faults that are being undone.
	closing sync.WaitGroup

	// injecting is held while a fault is being prepared and put into the kernel, which may take long. It is taken before mu.
	injecting sync.Mutex

	// killing are the callers that throw the switch and will say why.
	killing atomic.Int32

	// mu guards the active set; the main loop needs it to renew the lease, so nobody may hold it for long.
	mu     sync.Mutex
	faults map[string]*fault
	order  uint64
	lapses uint64
	budget *budget
	// generation is that of the switch under which the faults run that are on; 0: it is off. over is why that before it is over.
	generation uint64
	over       string
	// runs are the experiments under way.
	runs map[string]*experimentRun
	// observed is what they told, by experiment.
	observed map[string]*observed
	reason   string
	// ran and begun are how many faults were running, and had begun, when that was looked at last, and stirred is when that was first seen to
	// have changed after the daemon had rested; the zero time: it has not.
	ran     int
	begun   uint64
	stirred time.Time
	// capabilities are what the last check found.
	capabilities []*v1.Capability
}

// beat is how often the main loop looks at everything; deadlines and kills take effect in the kernel, not here.
const beat = 100 * time.Millisecond

// idleBeat is how often it does while there is no fault: then there is the lease to keep, and a kill from outside to write down.
const idleBeat = 500 * time.Millisecond

// retryUndo is how long a stuck fault rests before it is tried again.
const retryUndo = time.Second

// Check names an option that makes no sense, as its flag is named.
func (o Options) Check() error {
	for _, path := range []struct{ option, value string }{{"socket", o.Socket}, {"state-dir", o.StateDir}, {"pin-dir", o.PinDir}} {
		if path.value == "" {
			return fmt.Errorf("%s: missing; it must be a path", path.option)
		}
	}
	if o.Lease < 500*time.Millisecond || o.Lease > time.Minute {
		return fmt.Errorf("lease: %s is out of range; it must be in 500ms..1m", o.Lease)
	}
	if err := checkMetricsListen(o.MetricsListen); err != nil {
		return err
	}
	return checkSocket(o.Socket)
}

// New takes the state directory, undoes what an earlier run left, and opens the kernel side. Without a fault nothing of ours runs in
// the kernel. The caller calls Run or Close.
func New(o Options) (*Daemon, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	d := &Daemon{options: o, config: o.Config, log: o.Log, woken: make(chan struct{}, 1), faults: map[string]*fault{}, runs: map[string]*experimentRun{}, observed: map[string]*observed{}, events: hub{readers: map[*reader]bool{}}}
	var err error
	d.before = lookBefore(o)
	if d.lock, err = lockState(o.StateDir); err != nil {
		return nil, exhausted(err)
	}
	if err := d.open(); err != nil {
		return nil, d.refuse(err)
	}
	return d, nil
}

func (d *Daemon) open() error {
	var err error
	if d.env.Journal, err = undo.Open(d.options.StateDir); err != nil {
		return err
	}
	d.recover()
	if d.env.Cgroups, err = cgroup.Find(); err != nil {
		return err
	}
	d.env.Cgroups.Runtimes = container.New(d.config.Runtimes)
	if d.env.Kernel, err = bpf.Open(bpf.Options{PinDir: d.options.PinDir, DisableMechanisms: d.options.DisableMechanisms}); err != nil {
		return err
	}
	if d.pins, err = lockPins(d.options.PinDir); err != nil {
		return err
	}
	if err := d.setSwitch(); err != nil {
		return err
	}
	d.env.Journal.Generation = d.env.Kernel.Switch().Generation
	if d.env.Infrastructure.APIServers, err = d.config.apiServers(); err != nil {
		return err
	}
	if d.budget, err = newBudget(d.options.StateDir, d.config.Limits.PerDay, d.config.zone()); err != nil {
		return err
	}
	return d.startGuard()
}

func (d *Daemon) startGuard() error {
	d.env.CanSleep = func() error {
		return fmt.Errorf("hold sleepers: %w: this daemon runs without a guard", bpf.ErrNotSupported)
	}
	if d.options.StartGuard == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.unwatch = cancel
	guard, err := d.options.StartGuard(ctx, d.env.Kernel, d.options.StateDir, d.guardCgroup())
	if err != nil {
		return err
	}
	d.guard = guard // only now: what comes with an error need not be nil
	d.env.CanSleep = d.guard.CanSleep
	d.watched.Go(func() { d.guard.Watch(ctx) })
	return nil
}

// guardCgroup is the guard's own, so that what ends the daemon's whole cgroup does not end the guard. It is named after the state:
// the next daemon finds what this one had.
func (d *Daemon) guardCgroup() string {
	hash := fnv.New32a()
	hash.Write([]byte(d.options.StateDir))
	return filepath.Join(d.env.Cgroups.Mount(), fmt.Sprintf("%s%08x", guardCgroupPrefix, hash.Sum32()))
}

// recover undoes what an earlier run left behind.
func (d *Daemon) recover() {
	results, err := undo.Replay(context.Background(), d.options.StateDir, nil)
	if err != nil {
		d.log.Error("the journal is damaged; undid what could be read; look what is left with faultd check --residue, and take the journal away while no daemon runs", "journal", undo.Path(d.options.StateDir), "error", err)
	}
	for _, r := range results {
		if d.reportDown(r) {
			continue
		}
		d.log.Warn("undid what an earlier run left", "fault", r.Entry.Fault, "outcome", r.Outcome, "error", r.Err)
	}
	if err := d.env.Journal.Compact(); err != nil {
		d.log.Error("journal was not compacted", "error", err)
	}
}

// setSwitch keeps a kill across restarts and reboots. Otherwise it arms, by a new generation: rules of an earlier run, should any program still
// hold them, stay harmless.
func (d *Daemon) setSwitch() error {
	sw := d.env.Kernel.Switch()
	killed, reason := latched(d.options.StateDir)
	if !killed && !sw.Fresh() && sw.Generation() == 0 {
		killed, reason = true, "killed while no daemon ran"
		if err := Latch(d.options.StateDir, reason, "unknown"); err != nil {
			return err
		}
	}
	d.reason = reason
	if killed {
		sw.Kill()
		d.log.Warn("the kill switch is off", "reason", reason)
		return nil
	}
	d.generation = sw.Arm()
	return nil
}

// lockName is the file in the state directory that the daemon has locked.
const lockName = "lock"

// lockState refuses a second daemon on the same state. The lock goes with the process.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	return lockOnce(f)
}

// lockPins refuses a second daemon on the same switch: it would arm that anew, which ends all faults of the first one.
func lockPins(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the pin directory: %w", err)
	}
	return lockOnce(f)
}

// lockOnce takes a file or directory that one daemon at a time may have, or closes it.
func lockOnce(f *os.File) (*os.File, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another faultd uses it; stop that one, or give --state-dir, --pin-dir and --socket of its own", f.Name()), f.Close())
	}
	return f, nil
}

// Run serves until ctx is over, then ends every fault.
func (d *Daemon) Run(ctx context.Context) error {
	servers, err := d.listen()
	if err != nil {
		return d.refuse(err)
	}
	d.looped.Store(bpf.Monotonic())
	d.stirred = time.Now()
	failed := servers.serve()
	d.env.Kernel.RenewLease(d.options.Lease)
	d.note(audit.Record{Action: actionStart, Who: audit.Self(), What: d.place(), Outcome: "done"}, nil)
	if d.options.Ready != nil {
		d.options.Ready()
	}
	d.log.Info("ready", "socket", d.options.Socket, "kernel", kernelRelease(), "environment", d.config.Environment)
	if d.config.Environment == "" {
		d.log.Warn("no configuration says which environment this is; faultd takes it for one that may be hurt")
	}
	err = d.loop(ctx, failed)
	d.mu.Lock()
	d.endAll("daemon stopped")
	d.count(time.Now())
	d.mu.Unlock()
	d.closing.Wait()
	d.note(audit.Record{Action: actionStop, Who: audit.Self(), Outcome: "done"}, nil)
	return errors.Join(err, servers.close(), d.Close())
}

// loop is the daemon's heart: whoever holds the active set for too long stops it, and with it the lease.
func (d *Daemon) loop(ctx context.Context, failed <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(d.tend())
		d.looped.Store(bpf.Monotonic())
		if d.options.Alive != nil {
			d.options.Alive()
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-timer.C:
		case <-d.woken:
		}
	}
}

func (d *Daemon) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// tend looks at everything once: lease, switch, deadlines, targets, first harm. It says when it wants to look again.
func (d *Daemon) tend() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noticeKill() // before the lease: see noticeEnd
	if d.env.Kernel.KeepLease(d.options.Lease) {
		d.lapsed()
	}
	d.tendRuns()
	now, next := time.Now(), min(idleBeat, d.options.Lease/4)
	for _, f := range d.ordered() {
		d.tendFault(f, now)
		if f.state != stateEnded {
			next = beat
		}
	}
	d.count(now)
	d.rest(now)
	return next
}

// The reasons of what ends all faults.
const (
	reasonKilled = "killed"
	reasonLapsed = "lease lapsed"
)

// endGeneration ends all faults, and gives them; those that are being started will end for the same reason. Call with d.mu held.
func (d *Daemon) endGeneration(why string) []*fault {
	d.over = why
	return d.endAll(why)
}

// noticeEnd ends everything if the switch or the lease has done so already. A daemon that was stopped meanwhile finds both over,
// and it is the kill that somebody wanted. It does not renew the lease, which is the main loop's. Call with d.mu held.
func (d *Daemon) noticeEnd() {
	d.noticeKill()
	if d.running() > 0 && d.env.Kernel.LeaseOver() {
		d.lapsed()
	}
}

// lapsed ends everything after the lease was over. Call with d.mu held.
func (d *Daemon) lapsed() {
	kernel := d.env.Kernel
	d.lapses++
	// It is not renewed if somebody has thrown the switch meanwhile, which is noticed with the next look.
	if renewed := kernel.Switch().Renew(d.generation); renewed != 0 {
		d.generation = renewed
	}
	d.endGeneration(reasonLapsed)
	kernel.RenewLease(d.options.Lease)
	d.log.Error("the lease had lapsed: the daemon was stopped or starved; its faults are over")
	d.events.send("lapsed", nil, "the daemon was stopped or starved; its faults are over")
	d.noteLater(audit.Record{Action: actionLapse, Who: audit.Self(), Why: "the daemon was stopped or starved", Outcome: "done"})
}

// noticeKill ends everything if somebody has thrown the switch without asking the daemon, be it armed again since or not. Call with d.mu held.
func (d *Daemon) noticeKill() {
	now := d.env.Kernel.Switch().Generation()
	if now == d.generation || d.killing.Load() != 0 {
		return
	}
	if d.generation != 0 {
		d.killed("killed from outside", "unknown")
		d.noteLater(audit.Record{Action: "kill", Who: audit.Self(), Why: "the switch was thrown from outside; who did it, faultd does not know", Outcome: "noticed"})
	}
	if now == 0 {
		return
	}
	if err := d.armed(now, "armed from outside", "unknown"); err != nil {
		d.log.Error("the kill is still written down: the next daemon will start with the switch off", "error", err)
	}
	d.noteLater(audit.Record{Action: "arm", Who: audit.Self(), Why: "the switch was armed from outside; who did it, faultd does not know", Outcome: "noticed"})
}

// restAfter is how long after something began or ended the daemon rests, be there more of it meanwhile or not.
const restAfter = 2 * time.Second

// rest lets the daemon rest once after what has begun or ended; what goes on needs little. Call with d.mu held.
func (d *Daemon) rest(now time.Time) {
	if running := d.running(); running != d.ran || d.order != d.begun {
		d.ran, d.begun = running, d.order
		if d.stirred.IsZero() {
			d.stirred = now
		}
	}
	if d.stirred.IsZero() || now.Sub(d.stirred) < restAfter {
		return
	}
	d.stirred = time.Time{}
	if d.options.Rest != nil {
		d.closing.Go(d.options.Rest)
	}
}

// count counts the time during which a fault is on. Call with d.mu held.
func (d *Daemon) count(now time.Time) {
	if !d.budget.tick(now, d.running() > 0) {
		return
	}
	today := d.budget.spent
	d.closing.Go(func() {
		if err := d.budget.save(today); err != nil {
			d.log.Error("a restart will not know how long faults were on today", "error", err)
		}
	})
}

func (d *Daemon) tendFault(f *fault, now time.Time) {
	if f.state == stateEnded || f.state == stateStopping {
		return
	}
	if !f.harmed && faults.Harmed(f.handle) {
		f.harmed = true
		d.events.send("first-harm", f.message(), "")
	}
	if follower, ok := f.handle.(faults.Follower); ok {
		for _, change := range follower.Changes() {
			d.log.Info("fault follows", "fault", f.id, "change", change)
			d.events.send("changed", f.message(), change)
		}
	}
	if quitter, ok := f.handle.(faults.Quitter); ok && quitter.GaveUp() {
		d.end(f, reasonGaveUp)
		return
	}
	select {
	case <-f.gone:
		d.end(f, "target gone")
		return
	default:
	}
	if f.state == stateActive && f.by != nil && f.by.gone {
		d.end(f, "run gone")
		return
	}
	if f.state == stateStuck && now.Sub(f.ended) > retryUndo || f.state == stateActive && !now.Before(f.common.Until) {
		d.end(f, "expired")
	}
}

// killed ends everything after the switch was flipped, and writes it down; that this failed is no reason to end less. Call with d.mu held.
func (d *Daemon) killed(reason, by string) (ended []*fault, notWrittenDown error) {
	l := latch{time.Now(), reason, by}
	if notWrittenDown = l.write(d.options.StateDir); notWrittenDown != nil {
		d.log.Error("the kill is not written down and will not outlast a reboot", "error", notWrittenDown)
	}
	d.reason = l.String()
	d.generation = 0
	ended = d.endGeneration(reasonKilled)
	d.log.Warn("killed", "reason", reason, "by", by, "ended", len(ended))
	d.events.send("killed", nil, reason)
	return ended, notWrittenDown
}

func (d *Daemon) arm(reason, by string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noticeKill() // else the faults of before, which are over, would look as if they went on
	return d.armed(d.env.Kernel.Switch().Generation(), reason, by)
}

// armed arms the switch unless it is at a generation already, and writes that down. Call with d.mu held.
func (d *Daemon) armed(generation uint64, reason, by string) error {
	if err := Unlatch(d.options.StateDir); err != nil {
		return err
	}
	d.reason = ""
	if generation == 0 {
		generation = d.env.Kernel.Switch().Arm()
	}
	d.generation = generation
	d.log.Warn("armed", "reason", reason, "by", by)
	d.events.send("armed", nil, reason)
	return nil
}

// Close gives everything back.
func (d *Daemon) Close() error {
	errs := []error{d.closeGuard()}
	if d.env.Kernel != nil {
		errs = append(errs, d.env.Kernel.Close())
	}
	if d.pins != nil {
		errs = append(errs, d.pins.Close())
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// closeGuard ends the guard, if there is one. Twice is fine.
func (d *Daemon) closeGuard() error {
	if d.unwatch != nil {
		d.unwatch()
		d.watched.Wait()
	}
	if d.guard == nil {
		return nil
	}
	guard := d.guard
	d.guard = nil
	return guard.Close()
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
