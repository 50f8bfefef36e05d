// Command democlient is the client of `make demo`: it connects to a Redis anew for each request and prints, as a line of
// JSON, what it saw. SIGUSR1 makes it print a line at once and begin the next one.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	address := flag.String("address", "127.0.0.1:6379", "of the Redis")
	d := flag.Duration("for", 3*time.Second, "how long it asks")
	flag.Parse()
	logging.Disable() // each refused connection would be a line
	report := make(chan os.Signal, 1)
	signal.Notify(report, syscall.SIGUSR1)
	if err := ask(*address, *d, report); err != nil {
		fmt.Fprintln(os.Stderr, "democlient:", err)
		os.Exit(1)
	}
}

// observation is what a client saw.
type observation struct {
	took      []time.Duration
	errors    int
	lastError time.Time
	began     time.Time
}

func ask(address string, d time.Duration, report <-chan os.Signal) error {
	saw := observation{began: time.Now()}
	for end := saw.began.Add(d); time.Now().Before(end); {
		select {
		case <-report:
			if err := saw.print(); err != nil {
				return err
			}
			saw = observation{began: time.Now()}
		default:
			saw.once(address)
		}
	}
	return saw.print()
}

// once makes one request over a connection of its own.
func (o *observation) once(address string) {
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialerRetries: 1, PoolSize: 1})
	defer client.Close()
	began := time.Now()
	if err := client.Set(context.Background(), "demo", "x", 0).Err(); err != nil {
		o.errors++
		o.lastError = time.Now()
		return
	}
	o.took = append(o.took, time.Since(began))
}

// line is what is printed: the rate and the times are those of the requests that succeeded.
type line struct {
	Requests     int     `json:"requests"`
	PerSecond    float64 `json:"perSecond"`
	ErrorPercent float64 `json:"errorPercent"`
	Errors       int     `json:"errors"`
	P50          float64 `json:"p50Ms"`
	P99          float64 `json:"p99Ms"`
	// LastError in microseconds of Unix time; 0: there was none.
	LastError int64 `json:"lastErrorUs"`
}

func (o *observation) print() error {
	slices.SortFunc(o.took, cmp.Compare)
	total := len(o.took) + o.errors
	l := line{
		Requests: total, Errors: o.errors, ErrorPercent: 100 * float64(o.errors) / float64(max(total, 1)),
		PerSecond: float64(len(o.took)) / time.Since(o.began).Seconds(), P50: o.quantile(0.5), P99: o.quantile(0.99),
	}
	if !o.lastError.IsZero() {
		l.LastError = o.lastError.UnixMicro()
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// quantile is in milliseconds; 0 if no request succeeded.
func (o *observation) quantile(q float64) float64 {
	if len(o.took) == 0 {
		return 0
	}
	return float64(o.took[int(q*float64(len(o.took)-1))].Microseconds()) / 1000
}
