// Command democlient is the client of `make demo`: it connects to a Redis anew for each request and prints what it saw.
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	address := flag.String("address", "127.0.0.1:6379", "of the Redis")
	d := flag.Duration("for", 3*time.Second, "how long it asks")
	flag.Parse()
	logging.Disable() // each refused connection would be a line
	fmt.Println(pingFor(context.Background(), *address, *d))
}

// observation is what a client saw.
type observation struct {
	took    []time.Duration
	errors  int
	elapsed time.Duration
}

func pingFor(ctx context.Context, address string, d time.Duration) observation {
	var saw observation
	start := time.Now()
	for time.Since(start) < d && ctx.Err() == nil {
		client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialerRetries: 1, PoolSize: 1})
		began := time.Now()
		if err := client.Set(ctx, "demo", "x", 0).Err(); err != nil {
			saw.errors++
		} else {
			saw.took = append(saw.took, time.Since(began))
		}
		_ = client.Close()
	}
	saw.elapsed = time.Since(start)
	slices.Sort(saw.took)
	return saw
}

// String gives rate, errors and latency of the requests that succeeded.
func (o observation) String() string {
	total := len(o.took) + o.errors
	rate := float64(total) / o.elapsed.Seconds()
	percent := 100 * float64(o.errors) / float64(max(total, 1))
	return fmt.Sprintf("%6.0f requests/s, %5.1f %% errors, p50 %9s, p99 %9s", rate, percent, o.quantile(0.5), o.quantile(0.99))
}

func (o observation) quantile(q float64) string {
	if len(o.took) == 0 {
		return "-"
	}
	return o.took[int(q*float64(len(o.took)-1))].Round(10 * time.Microsecond).String()
}
