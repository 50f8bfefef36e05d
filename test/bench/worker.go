package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// workerCommand is the argument with which this program runs itself to be measured.
const workerCommand = "worker"

// What a worker can be ordered to do.
const (
	orderCost  = "cost"  // how long does a call take?
	orderSleep = "sleep" // how long do calls sleep, and what CPU time does that cost?
	orderWatch = "watch" // call again and again and look for harm, until orderEnd; orderSeen gives what was seen so far
	orderSeen  = "seen"
	orderEnd   = "end"
	orderServe = "serve" // answer requests of HTTP on a port
	orderGet   = "get"   // how many requests of HTTP to a port are answered per second?
)

// order is what a worker is asked, a line of JSON.
type order struct {
	Do      string
	Call    string
	Threads int
	// Count is how many calls each thread makes, for orderSleep.
	Count int
	// Slow is how long a call must take to count as hurt, for orderWatch; 0: it must fail.
	Slow time.Duration
	// Port is asked, for orderGet: by each of the threads, Count times.
	Port int
	// Once ends a thread after its first hurt call, for orderWatch.
	Once bool
}

// answer is what a worker says, a line of JSON.
type answer struct {
	Error string
	// Cost of one call in ns, in the batch that was disturbed least.
	Cost float64
	// Took is how long each call took, in ns; CPU is the CPU time of all of them together.
	Took []float64
	CPU  float64
	// First and Last are when the first and the last hurt call began, Over is when the last one was over, in ns of
	// CLOCK_MONOTONIC; 0: never.
	First, Last, Over int64
	// Port of orderServe, and Rate of orderGet.
	Port int
	Rate float64
}

// worker is this program, running again in a cgroup of its choice.
type worker struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	orders  *json.Encoder
	answers *json.Decoder
}

// startWorker starts one that can use so many threads.
func (b *bench) startWorker(group string, threads int) (*worker, error) {
	cmd := exec.Command("/proc/self/exe", workerCommand)
	// A thread for each that calls and some for the runtime, which has nothing else to do.
	cmd.Env = []string{fmt.Sprintf("GOMAXPROCS=%d", threads+2), "GOGC=off", "GODEBUG=asyncpreemptoff=1"}
	return b.startWorkerAs(group, cmd)
}

// startWorkerAs starts a program that can be ordered like a worker.
func (b *bench) startWorkerAs(group string, cmd *exec.Cmd) (*worker, error) {
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	if err := b.startIn(group, cmd); err != nil {
		return nil, err
	}
	return &worker{cmd: cmd, stdin: stdin, orders: json.NewEncoder(stdin), answers: json.NewDecoder(stdout)}, nil
}

// withWorker runs f beside a worker.
func (b *bench) withWorker(group string, threads int, f func(*worker) error) error {
	w, err := b.startWorker(group, threads)
	if err != nil {
		return err
	}
	return errors.Join(f(w), w.stop())
}

// stop ends the worker: it reads to the end of its input.
func (w *worker) stop() error {
	err := w.stdin.Close()
	// How it ended does not matter.
	_ = w.cmd.Wait()
	return err
}

func (w *worker) ask(o order) (answer, error) {
	var a answer
	if err := w.orders.Encode(o); err != nil {
		return a, fmt.Errorf("ask the worker for %s: %w", o.Do, err)
	}
	if err := w.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("ask the worker for %s: %w", o.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("worker: %s %s: %s", o.Do, o.Call, a.Error)
	}
	return a, nil
}

// cost measures a call.
func (w *worker) cost(call string) measurement {
	return func() (float64, error) {
		a, err := w.ask(order{Do: orderCost, Call: call})
		return a.Cost, err
	}
}
