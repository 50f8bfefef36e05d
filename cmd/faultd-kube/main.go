// Command faultd-kube carries out the Experiment objects of a Kubernetes cluster on its node, by the node's faultd.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
	"faultd/faults"
	"faultd/kube"
)

// How many requests a second an agent makes at most, and at once. A run makes a dozen or so.
const (
	requestRate  = 20
	requestBurst = 50
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faultd-kube:", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	app := &cli.App{
		Name: "faultd-kube", Usage: "carry out the Experiment objects of a cluster on this node, until SIGTERM or SIGINT", HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "`PATH` of the daemon's socket", Value: api.DefaultSocket, EnvVars: []string{"FAULTD_SOCKET"}},
			&cli.StringFlag{Name: "node", Usage: "`NAME` of this node in the cluster", EnvVars: []string{"NODE_NAME"}},
			&cli.StringFlag{Name: "kubeconfig", Usage: "`FILE` that says how to reach the API server", DefaultText: "the account of the pod"},
			&cli.StringFlag{Name: "listen", Usage: "TCP `ADDR` for /healthz, /readyz and /metrics", Value: ":9798"},
		},
		Writer: stderr, ErrWriter: stderr, ExitErrHandler: func(*cli.Context, error) {}, // main tells errors
		Action: func(c *cli.Context) error { return serve(c, stderr) },
	}
	return app.RunContext(ctx, args)
}

func serve(c *cli.Context, stderr io.Writer) error {
	if c.Args().Present() {
		return fmt.Errorf("%q: there are no arguments", c.Args().First())
	}
	if c.String("node") == "" {
		return errors.New("--node: missing; give this node's name in the cluster, or NODE_NAME in the environment")
	}
	agent, err := newAgent(c, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.String("listen"))
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	server := &http.Server{Handler: agent.Handler(), ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends with Close
	agent.Run(c.Context)
	_ = server.Close()
	serving.Wait()
	return nil
}

func newAgent(c *cli.Context, log *slog.Logger) (*kube.Agent, error) {
	config, err := clusterConfig(c.String("kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.UserAgent, config.QPS, config.Burst = "faultd-kube", requestRate, requestBurst
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	names, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	check := func(spec *v1.FaultSpec) error {
		_, _, err := faults.New(spec)
		return err
	}
	return kube.New(kube.Options{
		Node: c.String("node"), Objects: objects, Metadata: names, Daemon: api.NewClient(c.String("socket")), Check: check, Log: log,
		Environment: experiment.Environment{Host: c.String("node"), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU()},
	}), nil
}

// clusterConfig is that of a file, or of the pod's account.
func clusterConfig(file string) (*rest.Config, error) {
	if file == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("read the pod's account: %w; outside of a cluster give --kubeconfig", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}
