package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Goals of load.
const (
	goalMiss        = 0.03 // of what was asked for
	goalBurnersGone = 10 * time.Millisecond
)

const (
	// loadWindow is how long a load is watched, after loadSettles.
	loadWindow  = 5 * time.Second
	loadSettles = time.Second
	// loadRamp is how long a ramp of memory takes, and rampLook how often it is looked at.
	loadRamp   = 5 * time.Second
	rampLook   = 250 * time.Millisecond
	loadMemory = 256 << 20
)

// load measures what is got of a load that is asked for, beside stress-ng, and how soon it is gone.
func (b *bench) load() error {
	return b.withDaemon(func(d *daemon) error {
		return errors.Join(b.processorLoad(d), b.memoryLoad(d), b.burnersGone(d))
	})
}

// processorLoad: of the time that was asked for, what the kernel says was used by the cgroup of the load (cpu.stat), and what it cost the daemon.
func (b *bench) processorLoad(d *daemon) error {
	for _, percent := range []float64{10, 50, 90} {
		target, err := b.group("load")
		if err != nil {
			return err
		}
		theirs, why, err := b.stressed(target, 100, "--cpu", "1", "--cpu-load", fmt.Sprint(percent))
		if err != nil {
			return err
		}
		f, err := d.inject(&v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Load: fmt.Sprintf("%v%%", percent)}}})
		if err != nil {
			return err
		}
		before, err := processTime(d.cmd.Process.Pid)
		if err != nil {
			return err
		}
		ours, err := b.percentUsed(target + "/" + cgroup.BurnerPrefix + f.GetId())
		if err != nil {
			return err
		}
		after, err := processTime(d.cmd.Process.Pid)
		if err := errors.Join(err, d.stopAll()); err != nil {
			return err
		}
		b.report.add(row{What: fmt.Sprintf("processor time, %v %% of one asked, got (bare: stress-ng)", percent), Bare: or(why, fmt.Sprintf("%.2f %%", theirs)), With: fmt.Sprintf("%.2f %%", ours),
			Change: fmt.Sprintf("%+.1f %% of what was asked", 100*(ours/percent-1)), Asked: "within 3 %", Verdict: judge(math.Abs(ours/percent-1) <= goalMiss), Raw: []float64{theirs, ours}})
		b.report.add(row{What: fmt.Sprintf("what a load of %v %% costs the daemon", percent), With: fmt.Sprintf("%.2f %% of a processor", 100*(after-before).Seconds()/(loadSettles+loadWindow).Seconds())})
	}
	return nil
}

// percentUsed is how much of one processor a cgroup uses.
func (b *bench) percentUsed(group string) (float64, error) {
	time.Sleep(loadSettles)
	began := bpf.Monotonic()
	before, err := b.processorTime(group)
	if err != nil {
		return 0, err
	}
	time.Sleep(loadWindow)
	after, err := b.processorTime(group)
	return 100 * float64((after - before).Nanoseconds()) / float64(bpf.Monotonic()-began), err
}

// processorTime is what a cgroup has used.
func (b *bench) processorTime(group string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(b.cgroups.Mount(), group, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", group, err)
	}
	found := regexp.MustCompile(`(?m)^usage_usec (\d+)$`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("read the processor time of %s: %q", group, text)
	}
	us, err := strconv.ParseInt(string(found[1]), 10, 64)
	return time.Duration(us) * time.Microsecond, err
}

// processTime is what a process has used (proc_pid_stat(5); USER_HZ is 100).
func processTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the processor time of process %d: %q", pid, text)
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}

// stressed is what stress-ng uses of a processor; why says why it was not run.
func (b *bench) stressed(group string, seconds int, args ...string) (percent float64, why string, err error) {
	cmd, why, err := b.stress(group, seconds, args...)
	if why != "" || err != nil {
		return 0, why, err
	}
	percent, err = b.percentUsed(group)
	return percent, "", errors.Join(err, end(cmd))
}

// stress starts stress-ng in a cgroup.
func (b *bench) stress(group string, seconds int, args ...string) (cmd *exec.Cmd, why string, err error) {
	path, err := exec.LookPath("stress-ng")
	if err != nil {
		return nil, "stress-ng is not installed", nil
	}
	cmd = exec.Command(path, append(args, "--quiet", "--temp-path", b.dir, "--timeout", strconv.Itoa(seconds))...)
	return cmd, "", b.startIn(group, cmd)
}

// memoryLoad: how far what is resident is from what a ramp wants, looked at on its way; and what is resident in the end. stress-ng has no ramp.
func (b *bench) memoryLoad(d *daemon) error {
	target, err := b.group("load")
	if err != nil {
		return err
	}
	theirs, why, err := b.stressedMemory(target)
	if err != nil {
		return err
	}
	began := time.Now()
	f, err := d.inject(&v1.FaultSpec{Target: "cgroup:" + target, Duration: duration, Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{Load: fmt.Sprint(loadMemory), Ramp: loadRamp.String()}}})
	if err != nil {
		return err
	}
	var worst float64
	var is float64
	for end := began.Add(loadRamp + loadSettles); time.Now().Before(end); time.Sleep(rampLook) {
		if is, err = b.resident(target + "/" + cgroup.BurnerPrefix + f.GetId()); err != nil {
			return err
		}
		want := loadMemory * min(1, time.Since(began).Seconds()/loadRamp.Seconds())
		worst = max(worst, math.Abs(is-want))
	}
	if err := d.stopAll(); err != nil {
		return err
	}
	b.report.add(row{What: "memory, " + mebibytes(loadMemory) + " asked, resident (bare: stress-ng)", Bare: or(why, mebibytes(theirs)), With: mebibytes(is), Change: fmt.Sprintf("%+.1f %% of what was asked", 100*(is/loadMemory-1)),
		Asked: "within 3 %", Verdict: judge(math.Abs(is/loadMemory-1) <= goalMiss), Raw: []float64{theirs, is}})
	b.report.add(row{What: "memory that comes in " + loadRamp.String() + ", furthest from the line", Bare: or(why, "stress-ng has no ramp"), With: fmt.Sprintf("%s, %.1f %% of the whole", mebibytes(worst), 100*worst/loadMemory), Raw: worst})
	return nil
}

func (b *bench) stressedMemory(group string) (bytes float64, why string, err error) {
	cmd, why, err := b.stress(group, 100, "--vm", "1", "--vm-bytes", strconv.Itoa(loadMemory), "--vm-keep", "--vm-hang", "0")
	if why != "" || err != nil {
		return 0, why, err
	}
	time.Sleep(loadSettles + loadRamp)
	bytes, err = b.resident(group)
	return bytes, "", errors.Join(err, end(cmd))
}

// resident is the anonymous memory of the processes of a cgroup: what a program has of its files is not load.
func (b *bench) resident(group string) (bytes float64, err error) {
	pids, err := b.pids(group)
	for _, pid := range pids {
		if one, err := memoryOf(pid, "RssAnon"); err == nil { // it may have ended
			bytes += one
		}
		if one, err := memoryOf(pid, "RssShmem"); err == nil {
			bytes += one
		}
	}
	return bytes, err
}

func (b *bench) pids(group string) (pids []int, err error) {
	text, err := os.ReadFile(filepath.Join(b.cgroups.Mount(), group, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("read the processes of %s: %w", group, err)
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("read the processes of %s: %w", group, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// burnersGone: from the switch until the last process of four loads has ended.
func (b *bench) burnersGone(d *daemon) error {
	sw, err := bpf.OpenSwitch(d.pinDir)
	if err != nil {
		return err
	}
	defer sw.Close()
	var took []float64
	for range b.options.rounds {
		burners, err := b.fourBurners(d)
		if err != nil {
			return err
		}
		began := bpf.Monotonic()
		sw.Kill()
		ended, err := allEnded(burners)
		if err := errors.Join(err, d.rearm()); err != nil {
			return err
		}
		took = append(took, float64(ended-began))
	}
	b.report.addLatencies("a store into the switch to the last of 4 loads gone", took, goalBurnersGone)
	return nil
}

// fourBurners starts loads, and gives their processes.
func (b *bench) fourBurners(d *daemon) (burners []int, err error) {
	for _, spec := range []*v1.FaultSpec{
		{Kind: &v1.FaultSpec_Cpu{Cpu: &v1.Cpu{Load: "20%"}}},
		{Kind: &v1.FaultSpec_Memory{Memory: &v1.Memory{Load: "32MiB"}}},
		{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{Load: "20"}}},
		{Kind: &v1.FaultSpec_Fds{Fds: &v1.Fds{Load: "100"}}},
	} {
		target, err := b.group("load")
		if err != nil {
			return nil, err
		}
		spec.Target, spec.Duration = "cgroup:"+target, duration
		f, err := d.inject(spec)
		if err != nil {
			return nil, err
		}
		pids, err := b.pids(target + "/" + cgroup.BurnerPrefix + f.GetId())
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return nil, fmt.Errorf("open process %d: %w", pid, err)
			}
			burners = append(burners, fd)
		}
	}
	return burners, nil
}

// allEnded waits until all processes have ended, and says when.
func allEnded(processes []int) (at int64, err error) {
	for _, fd := range processes {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, pollErr := unix.Poll(poll, int(patience.Milliseconds()))
			if errors.Is(pollErr, unix.EINTR) {
				continue
			}
			if pollErr == nil && n == 0 {
				pollErr = errPatience
			}
			err = errors.Join(err, pollErr, unix.Close(fd))
			break
		}
	}
	return bpf.Monotonic(), err
}
