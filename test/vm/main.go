// Command vm runs programs, mostly Go test binaries, in virtual machines with kernels other than
// the host's. It is made for `go test -exec`:
//
//	go build -o /tmp/vm ./test/vm
//	go test -exec "/tmp/vm run -kernel 6.12 --" ./faults
//
// It fetches Debian's kernels, builds an initramfs with the programs, boots it in QEMU, streams the
// output and returns the exit code. A kernel that oopses, warns or reports a locking bug on its
// console is a failure, whatever the programs say.
//
// Exit codes: the first non-zero one of the programs, or 64 bad usage, 70 the kernel complained,
// 71 the machine ended early or not at all, 72 it ran out of time, 73 it could not be set up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  vm fetch [KERNEL...]                           download kernels, by default all
  vm list                                        show which kernels can be booted
  vm run -kernel KERNEL [flags] -- PROGRAM ARGS  run a program
  vm run -kernel KERNEL -binaries A,B -- ARGS    run several in one boot, with the same arguments
`

func main() {
	// `go test` sends SIGQUIT when its time is up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	code, err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

// command does what the command line says and returns the exit code.
func command(ctx context.Context, args []string, out, diag io.Writer) (int, error) {
	cache, err := defaultCacheDir()
	if err != nil {
		return exitSetup, err
	}
	if len(args) == 0 {
		fmt.Fprint(diag, usage)
		return exitUsage, errors.New("read command line: no command")
	}
	switch args[0] {
	case "fetch":
		return fetch(ctx, args[1:], cache, out)
	case "list":
		return list(ctx, cache, out), nil
	case "run":
		o, err := parseRun(args[1:], diag)
		if err != nil {
			return exitUsage, err
		}
		o.cacheDir = cache
		return run(ctx, o, out, diag)
	}
	fmt.Fprint(diag, usage)
	return exitUsage, fmt.Errorf("read command line: unknown command %q", args[0])
}

// fetch fetches the named kernels, by default all that are fetched at all.
func fetch(ctx context.Context, names []string, cache string, out io.Writer) (int, error) {
	if len(names) == 0 {
		for _, k := range debianKernels {
			names = append(names, k.name)
		}
	}
	for _, name := range names {
		k, ok := debianKernelNamed(name)
		if !ok {
			return exitUsage, fmt.Errorf("fetch kernel %s: it is none of Debian's", name)
		}
		if err := fetchKernel(ctx, k, cache); err != nil {
			return exitSetup, err
		}
		fmt.Fprintf(out, "%s\t%s\n", name, kernelDir(cache, name))
	}
	return 0, nil
}

// list shows all kernels, and whether QEMU will do. Its exit code is 0 if everything is there.
func list(ctx context.Context, cache string, out io.Writer) int {
	code := 0
	show := func(name, is string, err error) {
		if err != nil {
			is, code = "missing: "+err.Error(), exitSetup
		}
		fmt.Fprintf(out, "%s\t%s\n", name, is)
	}
	show("QEMU", "ok", checkQEMU(ctx, amd64))
	for _, name := range kernelNames() {
		k, err := findKernel(name, cache)
		show(name, k.image, err)
	}
	return code
}
