// Command fleet measures what the Experiment objects of a cluster cost its API server, and how fast they and the safety lever are, with
// simulated nodes: each has the agent's own code, a daemon that hurts nobody and one pod, of which the API server need not know. It prints a
// table; a goal that is missed is printed, and is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`FILE` that says how to reach an API server with faultd's definitions, and a ChaosPolicy that allows connect in the namespace shop")
	nodes := flag.Int("nodes", 1000, "`N` nodes in the largest fleet; the others have a tenth and a half of it")
	one := flag.Int("one", 0, "have one experiment carried out on all of `N` nodes, and measure nothing")
	some := flag.Int("some", 0, "with -one: the pods come while the experiment waits for them, and `N` of them are hurt")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	switch {
	case err != nil:
	case *one > 0:
		err = runOne(context.Background(), config, *one, *some)
	default:
		err = measure(context.Background(), config, *nodes)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func runOne(ctx context.Context, config *rest.Config, n, some int) error {
	f, err := startFleet(ctx, config, n, []int{n}, some > 0)
	if err != nil {
		return err
	}
	defer f.stop()
	if some > 0 {
		return f.wait(ctx, chosenLabel(n), n, some)
	}
	return f.run(ctx, chosenLabel(n), n)
}

// row is a line of the table.
type row struct{ section, what, got, asked, verdict string }

type table []row

func (t *table) add(section, what, got string) { t.line(row{section, what, got, "-", "-"}) }

// line adds one, and tells it at once: the largest fleet takes minutes.
func (t *table) line(r row) {
	fmt.Fprintf(os.Stderr, "fleet: %s: %s: %s\n", r.section, r.what, r.got)
	*t = append(*t, r)
}

// addTimes adds times of which the worst has a goal.
func (t *table) addTimes(section, what string, times []time.Duration, most time.Duration) {
	slices.Sort(times)
	verdict, worst := "ok", times[len(times)-1]
	if worst > most {
		verdict = "missed"
	}
	got := fmt.Sprintf("median %s, worst of %d %s", times[len(times)/2].Round(time.Millisecond), len(times), worst.Round(time.Millisecond))
	t.line(row{section, what, got, "worst <= " + most.String(), verdict})
}

func (t *table) print() {
	fmt.Printf("faultd fleet: %s/%s, %d CPUs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "section\twhat\tgot\tasked\tverdict")
	for _, r := range *t {
		fmt.Fprintln(w, strings.Join([]string{r.section, r.what, r.got, r.asked, r.verdict}, "\t"))
	}
	_ = w.Flush() // of the standard output
}

// Goals.
const (
	goalFirstHarm = time.Second
	goalLever     = 2 * time.Second
)

// How often what is fast is measured, and how long idle nodes are.
const (
	rounds   = 5
	idleTime = 10 * time.Second
)

// chosen is how many nodes of a fleet are hurt at once, if it has so many.
var chosen = []int{5, 25, 100, 250, 500}

func measure(ctx context.Context, config *rest.Config, most int) error {
	var t table
	for _, n := range []int{1, most / 10, most / 2, most} {
		f, err := startFleet(ctx, config, n, append(chosen, 1), false)
		if err != nil {
			return err
		}
		section := fmt.Sprintf("%d nodes", n)
		switch n {
		case 1:
			err = firstHarm(ctx, f, &t, section)
		case most / 2:
			err = lever(ctx, f, &t, section)
		default:
			err = load(ctx, f, &t, section)
		}
		f.stop()
		if err != nil {
			return err
		}
	}
	t.print()
	return nil
}

// firstHarm: from the request that makes an object to the order that hurts its pod.
func firstHarm(ctx context.Context, f *fleet, t *table, section string) error {
	var times []time.Duration
	for i := range rounds {
		begin := time.Now()
		name := fmt.Sprint("first-", i)
		if err := f.run(ctx, name, 1); err != nil {
			return err
		}
		times = append(times, f.nodes[0].daemon.firstHarm().Sub(begin))
	}
	t.addTimes(section, "experiment object to first harm", times, goalFirstHarm)
	return nil
}

// lever: from the request that engages it to the last daemon that was killed.
func lever(ctx context.Context, f *fleet, t *table, section string) error {
	var times []time.Duration
	for range rounds {
		begin := time.Now()
		if err := f.pull(ctx, true); err != nil {
			return err
		}
		last := begin
		for _, n := range f.nodes {
			if at := n.daemon.killed(); at.After(last) {
				last = at
			}
		}
		times = append(times, last.Sub(begin))
		if err := f.pull(ctx, false); err != nil {
			return err
		}
	}
	t.addTimes(section, "safety lever to the last daemon's kill", times, goalLever)
	return nil
}

// load: what the API server is asked, and what it sends, while nothing happens and for experiments on few and on many nodes.
func load(ctx context.Context, f *fleet, t *table, section string) error {
	before := f.traffic.now()
	time.Sleep(idleTime)
	t.add(section, "idle, each second", f.traffic.now().less(before).per(idleTime))
	for _, hurt := range chosen {
		if hurt > len(f.nodes) {
			continue
		}
		before, begin := f.traffic.now(), time.Now()
		what := fmt.Sprintf("an experiment on %d of them", hurt)
		err := f.run(ctx, chosenLabel(hurt), hurt)
		if errors.Is(err, errPatience) || errors.Is(err, errOutcome) {
			t.add(section, what, "not measured: "+err.Error())
			continue
		}
		if err != nil {
			return err
		}
		got := f.traffic.now().less(before)
		t.add(section, what, fmt.Sprintf("%s in %s; %.1f KiB to each node", got, time.Since(begin).Round(100*time.Millisecond), float64(got.bytes+got.podBytes)/1024/float64(len(f.nodes))))
	}
	return nil
}
