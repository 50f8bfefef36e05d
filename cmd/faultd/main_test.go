package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"

	"faultd/api/faultd/v1alpha1/faultdv1alpha1connect"
	"faultd/faults"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"faultd": main, shopCommand: shop})
}

// testNode stands in for the node. What happens is chosen by the pin directory: "ok" works, "denied" and
// "absent" fail, "dirty" has residue.
func testNode() node {
	fail := func(pinDir string) error {
		switch pinDir {
		case "denied":
			return fmt.Errorf("open the pinned map: %w", syscall.EACCES)
		case "absent":
			return fmt.Errorf("open the pinned map: %w", syscall.ENOENT)
		}
		return nil
	}
	return node{
		kill:  func(pinDir string) error { return fail(pinDir) },
		latch: func(stateDir, _ string) error { return fail(stateDir) },
		arm:   func(pinDir, _, _ string) error { return fail(pinDir) },
		residue: func(pinDir, _ string) ([]string, error) {
			if pinDir == "dirty" {
				return []string{"filter on eth0", "map /sys/fs/bpf/x"}, nil
			}
			return nil, fail(pinDir)
		},
		audit: func(stateDir, _, _ string) error { return fail(stateDir) },
		config: func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read the configuration: %w", err)
			}
			if string(text) != "good\n" {
				return errors.New("limits.faults: -1 is out of range")
			}
			return nil
		},
	}
}

// TestScripts runs testdata/*.txtar. In them "run CODE ARG..." runs faultd in this process against a fake
// daemon (or, after "env FAULTD_SOCKET=", against another socket) and checks the exit code.
func TestScripts(t *testing.T) {
	t.Setenv("FAULTD_HISTORY", filepath.Join(t.TempDir(), "history.db"))
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// Not in the work directory of the script: its path can be too long for a socket.
			dir, err := os.MkdirTemp("", "fd")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			examples, err := filepath.Abs("../../examples")
			if err != nil {
				return err
			}
			e.Setenv("EXAMPLES", examples)
			e.Setenv("FAULTD_SOCKET", serveFake(e.T().(testing.TB), dir, &fake{}))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"run": runScript},
	})
}

// oneRun lets one script at a time run faultd in this process: urfave/cli keeps its help and completion flags in
// variables of the package, and writes to them. The program itself runs once per process.
var oneRun sync.Mutex

func runScript(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: run CODE ARG...")
	}
	for i, arg := range args {
		if strings.HasPrefix(arg, "@") { // a file of the script
			args[i] = ts.MkAbs(arg[1:])
		}
	}
	words := append([]string{"faultd", "--socket", ts.Getenv("FAULTD_SOCKET")}, args[1:]...)
	oneRun.Lock()
	got := runWith(context.Background(), testNode(), words, strings.NewReader(""), ts.Stdout(), ts.Stderr())
	oneRun.Unlock()
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// TestExamplesOfPeersAreValid: what the files hold is taken, not only by the schema.
func TestExamplesOfPeersAreValid(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.cidrs")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples are %v, %v", files, err)
	}
	for _, file := range files {
		peers, err := readPeers(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := (faults.Partition{Traffic: faults.Traffic{Peers: peers}}).Validate(); err != nil || len(peers) < 3 {
			t.Errorf("%s: %v, %v", file, peers, err)
		}
	}
}

// TestDocumentedExperimentsAreValid: what the docs show is taken.
func TestDocumentedExperimentsAreValid(t *testing.T) {
	for _, file := range []string{"../../README.md", "../../docs/experiments.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents := regexp.MustCompile(`(?m)^( *)apiVersion: (?:.+\n)+`).FindAllStringSubmatch(string(text), -1)
		if len(documents) == 0 {
			t.Errorf("%s has no experiment", file)
		}
		for _, match := range documents {
			document, _, _ := strings.Cut(strings.ReplaceAll("\n"+match[0], "\n"+match[1], "\n"), "```")
			document, _, _ = strings.Cut(document, "\n$ ")
			path := filepath.Join(t.TempDir(), "experiment.yaml")
			if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errOut bytes.Buffer
			if code := runWith(t.Context(), testNode(), []string{"faultd", "validate", path}, nil, &out, &errOut); code != exitDone {
				t.Errorf("%s: %s", file, errOut.String())
			}
		}
	}
}

// shortDir is a temporary directory whose path fits into the address of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestInterruptedWaitStopsTheFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	daemon := &fake{got: cancel} // by then it waits
	socket := serveFake(t, shortDir(t), daemon)
	var out, errOut bytes.Buffer
	code := runWith(ctx, testNode(), []string{"faultd", "inject", "--socket", socket, "connect", "--errno", "EPERM", "--target", "cgroup:/a", "--duration", "1m", "--wait"}, nil, &out, &errOut)
	if code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
	daemon.mu.Lock()
	defer daemon.mu.Unlock()
	if state := daemon.faults[0].GetState(); state != "ended" {
		t.Errorf("the fault is %s", state)
	}
	if !strings.HasPrefix(out.String(), "f1\n") || !strings.Contains(out.String(), "stopped") {
		t.Errorf("stdout: %s", out.String())
	}
}

func TestInterruptedBeforeTheAnswer(t *testing.T) {
	daemon := &fake{}
	socket := serveFake(t, shortDir(t), daemon)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	code := runWith(ctx, testNode(), []string{"faultd", "--socket", socket, "inject", "connect", "--errno", "EPERM", "--target", "cgroup:/a", "--duration", "1m"}, nil, &out, &errOut)
	if code != exitInterrupted || len(daemon.faults) != 1 || daemon.faults[0].GetState() != "ended" {
		t.Errorf("exit code %d, faults %v, stderr %s", code, daemon.faults, errOut.String())
	}
}

func TestHungDaemonDoesNotStopAKill(t *testing.T) {
	for name, daemon := range map[string]faultdv1alpha1connect.FaultServiceHandler{"hung": hung{}, "hung, and notices first": tardy{}} {
		t.Run(name, func(t *testing.T) {
			socket := serveFake(t, shortDir(t), daemon)
			stored := false
			n := testNode()
			n.kill = func(string) error { stored = true; return nil }
			var out, errOut bytes.Buffer
			code := runWith(t.Context(), n, []string{"faultd", "--socket", socket, "kill", "--reason", "test"}, nil, &out, &errOut)
			if code != exitDone || !stored {
				t.Errorf("exit code %d, stored %v", code, stored)
			}
			if !strings.Contains(errOut.String(), "the daemon was not told: no answer") {
				t.Errorf("stderr: %s", errOut.String())
			}
		})
	}
}

// TestTardyDaemonMayHaveInjected: whoever's clock says that the time is over, the fault may run.
func TestTardyDaemonMayHaveInjected(t *testing.T) {
	socket := serveFake(t, shortDir(t), tardy{})
	var out, errOut bytes.Buffer
	code := runWith(t.Context(), testNode(), []string{"faultd", "--socket", socket, "inject", "connect", "--errno", "EPERM", "--target", "cgroup:/a", "--duration", "1m"}, nil, &out, &errOut)
	if want := "within 10s: wait for x: context deadline exceeded; the fault may run"; code != exitFailed || !strings.Contains(errOut.String(), want) {
		t.Errorf("exit code %d, stderr %s; want %q", code, errOut.String(), want)
	}
	errOut.Reset()
	code = runWith(t.Context(), testNode(), []string{"faultd", "--socket", socket, "inject", "connect", "--errno", "EPERM", "--target", "cgroup:/a", "--duration", "1m", "--dry-run"}, nil, &out, &errOut)
	if code != exitFailed || strings.Contains(errOut.String(), "may run") {
		t.Errorf("a dry run: exit code %d, stderr %s", code, errOut.String())
	}
}

// samples has an error for each exit code that is in use.
func samples() map[int]error {
	return map[int]error{
		exitDone:         nil,
		exitFailed:       connect.NewError(connect.CodeFailedPrecondition, errors.New("x")),
		exitRefuted:      exitError{exitRefuted, nil},
		exitAborted:      connect.NewError(connect.CodeAborted, errors.New("x")),
		exitInterrupted:  context.Canceled,
		exitInert:        exitError{exitInert, nil},
		exitUsage:        usageErrorf("x"),
		exitNoDaemon:     dialError("/s", syscall.ECONNREFUSED),
		exitNotPermitted: dialError("/s", syscall.EACCES),
		exitNotSupported: connect.NewError(connect.CodeUnimplemented, errors.New("x")),
	}
}

func TestExitCodesExist(t *testing.T) {
	for _, row := range exitCodes() {
		err, used := samples()[row.code]
		if !used {
			t.Errorf("%d (%s) has no error that leads to it", row.code, row.meaning)
		}
		if used && exitCode(err) != row.code {
			t.Errorf("%v leads to %d, want %d", err, exitCode(err), row.code)
		}
	}
}

// TestSocketWithoutAFileLeft: a command that may open no file more does not blame the daemon.
func TestSocketWithoutAFileLeft(t *testing.T) {
	if err := dialError("/s", os.NewSyscallError("socket", syscall.EMFILE)); exitCode(err) != exitFailed || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("%v leads to %d", err, exitCode(err))
	}
}

// TestExitCodesInDocs compares the tables under the heading "Exit codes" in docs with exitCodes.
func TestExitCodesInDocs(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, section, found := strings.Cut(string(text), "# Exit codes\n")
		if !found {
			continue
		}
		tables++
		section, _, _ = strings.Cut(section, "\n#")
		var documented, existing []string
		for _, match := range regexp.MustCompile(`(?m)^\| *(\d+) *\|`).FindAllStringSubmatch(section, -1) {
			documented = append(documented, match[1])
		}
		for _, row := range exitCodes() {
			existing = append(existing, strconv.Itoa(row.code))
		}
		if !slices.Equal(documented, existing) {
			t.Errorf("%s has %v, want %v", file, documented, existing)
		}
	}
	if tables == 0 {
		t.Skip("docs have no heading \"# Exit codes\" yet")
	}
}

func TestFlagsFirst(t *testing.T) {
	for line, want := range map[string]string{
		"faultd inject --target a connect --errno E":  "faultd inject connect --target a --errno E",
		"faultd inject connect --percent -5":          "faultd inject connect --percent -5",
		"faultd list -o json":                         "faultd -o json list",
		"faultd update f1 --percent=5":                "faultd update --percent=5 f1",
		"faultd stop f1 --socket s":                   "faultd --socket s stop f1",
		"faultd stop -- --all":                        "faultd stop -- --all",
		"faultd --nope list":                          "faultd list --nope",
		"faultd inject packet --per-flow --loss 5 -h": "faultd inject packet --per-flow --loss 5 -h",
	} {
		if got := strings.Join(flagsFirst(newApp(testNode()), strings.Fields(line)), " "); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

// TestKindsHaveCommands: the command line has the kinds of the table, and tells the same of them.
func TestKindsHaveCommands(t *testing.T) {
	var told, known []string
	for _, command := range injectCommand().Subcommands {
		told = append(told, command.Name+": "+command.Usage)
	}
	for _, kind := range faults.Kinds() {
		known = append(known, kind.Name+": "+kind.Summary)
	}
	if !slices.Equal(told, known) {
		t.Errorf("inject has\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(known, "\n"))
	}
}

// TestFlagsAgree: flagsFirst knows a flag by its name alone, so a name must take a value everywhere or nowhere.
func TestFlagsAgree(t *testing.T) {
	app := newApp(testNode())
	takes := map[string]bool{}
	for _, flag := range allFlags(app.Flags, app.Commands) {
		for _, name := range flag.Names() {
			value := flag.(interface{ TakesValue() bool }).TakesValue()
			if before, seen := takes[name]; seen && before != value {
				t.Errorf("--%s takes a value only sometimes", name)
			}
			takes[name] = value
		}
	}
}
