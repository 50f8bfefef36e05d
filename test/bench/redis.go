package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redis is a Redis server in a cgroup of its own, on loopback, that keeps nothing.
type redis struct {
	b      *bench
	server *exec.Cmd
	group  string // of the server
	client string // the group of those who ask
	port   int
}

// requests are enough for about half a second.
const requests = 50000

// withRedis runs f beside a Redis; where there is none, the row called what says so.
func (b *bench) withRedis(what string, f func(*redis) error) error {
	for _, program := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(program); err != nil {
			b.report.missing(what, program+" is not here")
			return nil
		}
	}
	r, err := b.startRedis()
	if err != nil {
		return err
	}
	return errors.Join(f(r), end(r.server))
}

func (b *bench) startRedis() (*redis, error) {
	group, err := b.group("redis-server")
	if err != nil {
		return nil, err
	}
	r := &redis{b: b, group: group}
	if r.client, err = b.group("redis-client"); err != nil {
		return nil, err
	}
	if r.port, err = freePort(); err != nil {
		return nil, err
	}
	r.server = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(r.port), "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err := b.startIn(group, r.server); err != nil {
		return nil, err
	}
	if err := awaitPort(r.port); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for Redis: %w", err), end(r.server))
	}
	return r, nil
}

// freePort is one that nobody listens on at the moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// awaitPort waits until somebody listens.
func awaitPort(port int) error {
	return poll(func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// get measures requests per second of redis-benchmark's GET, in the client's cgroup, through a port.
func (r *redis) get(port int) measurement { return r.getSome(port, requests) }

func (r *redis) getSome(port, requests int) measurement {
	return func() (float64, error) {
		var out, errs strings.Builder
		cmd := exec.Command("redis-benchmark", "-p", strconv.Itoa(port), "-t", "get", "-n", strconv.Itoa(requests), "--csv")
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := r.b.startIn(r.client, cmd); err != nil {
			return 0, err
		}
		if err := cmd.Wait(); err != nil {
			return 0, fmt.Errorf("redis-benchmark: %w: %s", err, errs.String())
		}
		return parseBenchmark(out.String())
	}
}

// costing measures requests per second, and then the processor time in ns of each.
func (r *redis) costing(requests int) []measurement {
	var cost float64
	return []measurement{
		func() (rate float64, err error) {
			rate, cost, err = r.rateAndCost(requests)
			return rate, err
		},
		func() (float64, error) { return cost, nil },
	}
}

// rateAndCost gives the requests per second, and the processor time in ns that server and client used for each.
func (r *redis) rateAndCost(requests int) (rate, cost float64, err error) {
	before, err := r.used()
	if err != nil {
		return 0, 0, err
	}
	if rate, err = r.getSome(r.port, requests)(); err != nil {
		return 0, 0, err
	}
	after, err := r.used()
	return rate, float64((after - before).Nanoseconds()) / float64(requests), err
}

// used is the processor time of server and clients.
func (r *redis) used() (time.Duration, error) {
	server, err := r.b.processorTime(r.group)
	client, err2 := r.b.processorTime(r.client)
	return server + client, errors.Join(err, err2)
}

// parseBenchmark finds the rate of GET in what `redis-benchmark --csv` prints.
func parseBenchmark(csv string) (float64, error) {
	for line := range strings.Lines(csv) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		if fields[0] != `"GET"` || len(fields) < 2 {
			continue
		}
		v, err := strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
		if err != nil || v <= 0 {
			return 0, fmt.Errorf("redis-benchmark: rate %s is no number above 0", fields[1])
		}
		return v, nil
	}
	return 0, fmt.Errorf("redis-benchmark: no line of GET in %q", csv)
}

// startToxiproxy starts Toxiproxy, without a toxic, in front of a server on a port; the proxy listens on another one.
func (b *bench) startToxiproxy(name string, upstream int) (proxy *exec.Cmd, port int, err error) {
	if port, err = freePort(); err != nil {
		return nil, 0, err
	}
	control, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	config := filepath.Join(b.dir, "toxiproxy.json")
	text := fmt.Sprintf(`[{"name":%q,"listen":"127.0.0.1:%d","upstream":"127.0.0.1:%d","enabled":true}]`, name, port, upstream)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, 0, fmt.Errorf("configure Toxiproxy: %w", err)
	}
	group, err := b.group("toxiproxy")
	if err != nil {
		return nil, 0, err
	}
	proxy = exec.Command(b.options.toxiproxy, "-host", "127.0.0.1", "-port", strconv.Itoa(control), "-config", config)
	proxy.Env = []string{"LOG_LEVEL=error"}
	if err := b.startIn(group, proxy); err != nil {
		return nil, 0, err
	}
	if err := awaitPort(port); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("wait for Toxiproxy: %w", err), end(proxy))
	}
	return proxy, port, nil
}
