package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"faultd/test/vm/guest"
)

// defaultTimeout is the limit of a run for which neither -timeout nor the tests set one.
const defaultTimeout = 10 * time.Minute

// bootAllowance is what a machine may take on top of its tests' own limit, so that they run into
// that one first and show where they hang.
const bootAllowance = 45 * time.Second

// parseRun reads the command line of `run`.
func parseRun(args []string, diag io.Writer) (options, error) {
	var o options
	var binaries string
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.SetOutput(diag)
	f.StringVar(&o.kernel, "kernel", "", "kernel to boot: "+strings.Join(kernelNames(), ", "))
	f.StringVar(&o.image, "image", "", "bzImage to boot as KERNEL, which is then only the name that programs see: one with all drivers built in, virtio-blk among them")
	f.StringVar(&binaries, "binaries", "", "programs to run one after the other, separated by commas; all get ARGS")
	f.Func("file", "program or file of the host to have in the guest at the same path, with its libraries; may be repeated", absolute(&o.files))
	f.Func("dir", "directory of the host to have in the guest at the same path; may be repeated", absolute(&o.dirs))
	f.Func("env", "KEY=VALUE for the programs; may be repeated", keyValue(&o.env))
	f.Func("module", "kernel module that must be there; may be repeated", func(s string) error { o.modules = append(o.modules, s); return nil })
	f.StringVar(&o.append, "append", "", "addition to the kernel's command line")
	f.StringVar(&o.mem, "mem", "1G", "memory of the guest")
	f.StringVar(&o.accel, "accel", defaultAccel, "QEMU's accelerator with its options")
	f.BoolVar(&o.icount, "icount", false, "the guest's time follows its instructions, one per ns, so that what it measures does not depend on the host; it has one processor then")
	f.IntVar(&o.smp, "smp", 2, "processors of the guest")
	f.DurationVar(&o.timeout, "timeout", 0, fmt.Sprintf("limit for the machine (default -test.timeout + %s, or %s)", bootAllowance, defaultTimeout))
	f.StringVar(&o.persist, "persist", "", "ext4 disk image to mount at "+guest.PersistDir+"; made if it is not there")
	f.IntVar(&o.reboots, "reboots", 0, "how often the programs reboot the machine, switch it off, or crash it on purpose; each time they run once more; needs -persist")
	f.StringVar(&o.resetAfter, "reset-after", "", "reset the machine when the programs print exactly this line, then run them once more; needs -persist")
	f.StringVar(&o.console, "console", "", "file to write the kernel's console to")
	f.BoolVar(&o.verbose, "v", false, "say how long it took")
	if err := f.Parse(args); err != nil {
		return o, fmt.Errorf("read command line: %w", err)
	}
	return o, o.complete(binaries, f.Args())
}

// complete checks what flag cannot check and fills in what depends on several flags.
func (o *options) complete(binaries string, args []string) error {
	if binaries != "" {
		for _, b := range strings.Split(binaries, ",") {
			o.programs = append(o.programs, guest.Program{Path: b, Args: args})
		}
	} else if len(args) > 0 {
		o.programs = []guest.Program{{Path: args[0], Args: args[1:]}}
	}
	switch {
	case o.kernel == "":
		return errors.New("read command line: -kernel is missing")
	case len(o.programs) == 0:
		return errors.New("read command line: no program to run")
	case o.reboots > 0 && o.persist == "":
		return errors.New("read command line: -reboots needs -persist: nothing else outlives a reboot")
	case o.resetAfter != "" && o.persist == "":
		return errors.New("read command line: -reset-after needs -persist: nothing else outlives a reset")
	}
	if o.icount {
		o.smp = 1 // all processors' instructions would count
	}
	if o.timeout == 0 {
		o.timeout = timeoutFor(args, len(o.programs))
	}
	wd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("read command line: %w", err)
	}
	o.workDir = wd
	if o.image != "" && !isFile(o.image) {
		return fmt.Errorf("read command line: -image %s: there is no such file", o.image)
	}
	if o.persist != "" {
		o.persist, err = filepath.Abs(o.persist)
	}
	return err
}

// timeoutFor derives a limit from the one that each of n test binaries is given. They may have none
// (0).
func timeoutFor(args []string, n int) time.Duration {
	for _, arg := range args {
		value, ok := strings.CutPrefix(arg, "-test.timeout=")
		if !ok {
			continue
		}
		if limit, err := time.ParseDuration(value); err == nil && limit > 0 {
			return time.Duration(n)*limit + bootAllowance
		}
	}
	return defaultTimeout
}

func absolute(list *[]string) func(string) error {
	return func(s string) error {
		abs, err := filepath.Abs(s)
		*list = append(*list, abs)
		return err
	}
}

func keyValue(list *[]string) func(string) error {
	return func(s string) error {
		if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
			return errors.New("want KEY=VALUE")
		}
		*list = append(*list, s)
		return nil
	}
}
