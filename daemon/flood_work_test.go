package daemon_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// flood asks without a pause, by many threads, and counts the answers.
type flood struct {
	mu      sync.Mutex
	answers map[string]int
}

// obeyFlood carries out an order.
func (l *labourer) obeyFlood(a args) (string, error) {
	switch order := a.text(); order {
	case "dns": // THREADS NETWORK SERVER NAME
		threads, network, server, name := a.number(), a.text(), a.text(), a.text()
		return l.startFlood(threads, func() string {
			answer, err := askOnce(network, server, name, "A", 5*time.Second)
			if err != nil {
				answer = err.Error()
			}
			return answer
		})
	case "grpc": // THREADS ADDRESS
		threads, address := a.number(), a.text()
		conn, err := caller(address)
		if err != nil {
			return "", err
		}
		return l.startFlood(threads, func() string { return status.Code(check(conn)).String() })
	case "anew": // TIMES ADDRESS: calls of gRPC
		return checkAnew(a.number(), a.text())
	case "tally": // the answers since the last time, as "OK:3 Unavailable:1"
		return l.flood.tally(), nil
	default:
		return "", fmt.Errorf("order flood %s is unknown", order)
	}
}

// caller is a client of gRPC as programs have it.
func caller(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func check(conn *grpc.ClientConn) error {
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// checkAnew makes calls, each by a connection of its own, and gives what they ended with, as "OK:3 Unavailable/gone:1".
func checkAnew(times int, address string) (string, error) {
	f := flood{answers: map[string]int{}}
	for range times {
		conn, err := caller(address)
		if err != nil {
			return "", err
		}
		answer := "OK"
		if s := status.Convert(check(conn)); s.Message() != "" {
			answer = s.Code().String() + "/" + strings.Join(strings.Fields(s.Message()), "_")
		}
		f.answers[answer]++
		conn.Close()
	}
	return f.tally(), nil
}

func (l *labourer) startFlood(threads int, ask func() string) (string, error) {
	f := &flood{answers: map[string]int{}}
	l.flood = f
	for range threads {
		go func() { // until the process ends
			for {
				answer := strings.Join(strings.Fields(ask()), "_")
				f.mu.Lock()
				f.answers[answer]++
				f.mu.Unlock()
			}
		}()
	}
	return "flooding", nil
}

func (f *flood) tally() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, answer := range slices.Sorted(maps.Keys(f.answers)) {
		words = append(words, fmt.Sprintf("%s:%d", answer, f.answers[answer]))
	}
	clear(f.answers)
	return strings.Join(words, " ")
}
