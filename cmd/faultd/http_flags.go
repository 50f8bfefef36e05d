package main

import (
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

func httpFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "method", Usage: "`METHOD` that is hurt, such as GET; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "path", Usage: "`GLOB` for the path as it is written in the request, such as '/api/*'; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "host", Usage: "`GLOB` for the host that is asked for, such as '*.example.com'; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "header", Usage: "`HEADER` that a request must have: X-Test, or with a glob for its value 'X-Test: a*'; repeatable, all must fit"},
		&cli.UintFlag{Name: "status", Usage: "answer with this status, in 200-599; the server is not asked"},
		&cli.StringFlag{Name: "grpc-code", Usage: "answer calls of gRPC with this `CODE`, such as UNAVAILABLE or 14; the server is not asked"},
		&cli.BoolFlag{Name: "abort", Usage: "reset the connection, or with HTTP/2 the stream; the server is not asked"},
		&cli.StringFlag{Name: "delay", Usage: "how long a request waits before it is answered, or passed on"},
		jitterFlag(), distributionFlag(),
		&cli.StringFlag{Name: "body", Usage: "`TEXT` or @FILE: with --status the answer's body, with --grpc-code its message; else instead of the body of the server's response"},
		&cli.StringFlag{Name: "request-body", Usage: "`TEXT` or @FILE instead of the body of the request"},
		&cli.StringSliceFlag{Name: "request-header", Usage: "`CHANGE` of requests: 'X-Test: a' sets a header, '-X-Test' takes it out; repeatable"},
		&cli.StringSliceFlag{Name: "response-header", Usage: "`CHANGE` of responses; repeatable"},
	}
	for _, flag := range trafficFlags() {
		switch flag.Names()[0] {
		case "peer", "peers-file", "except", "wait-for-names", "include", "port":
			flags = append(flags, flag)
		}
	}
	return flags
}

func httpKind(c *cli.Context, spec *v1.FaultSpec) error {
	http := &v1.Http{
		Methods: listed(c, "method"), Paths: listed(c, "path"), Hosts: listed(c, "host"), Headers: c.StringSlice("header"),
		Status: uint32(min(c.Uint("status"), 1<<32-1)), GrpcCode: c.String("grpc-code"), Abort: c.Bool("abort"), Delay: c.String("delay"), Jitter: c.String("jitter"), Distribution: c.String("distribution"),
		RequestHeaders: c.StringSlice("request-header"), ResponseHeaders: c.StringSlice("response-header"),
	}
	var err error
	if http.Body, err = textOrFile(c, "body"); err != nil {
		return err
	}
	if http.RequestBody, err = textOrFile(c, "request-body"); err != nil {
		return err
	}
	if proto.Equal(http, &v1.Http{Methods: http.Methods, Paths: http.Paths, Hosts: http.Hosts, Headers: http.Headers}) {
		return usageErrorf("give one of --status, --grpc-code, --abort, --delay, --body, --request-body, --request-header and --response-header")
	}
	if http.Peers, err = peers(c); err != nil {
		return err
	}
	http.Ports, http.Traffic = listed(c, "port"), traffic(c)
	spec.Kind = &v1.FaultSpec_Http{Http: http}
	return nil
}

// textOrFile is the value of a flag, or with @ what is in the file of that name; nil: the flag was not given.
func textOrFile(c *cli.Context, name string) (*string, error) {
	text := given(c, name, c.String)
	if text == nil || !strings.HasPrefix(*text, "@") {
		return text, nil
	}
	read, err := readFile(name, (*text)[1:])
	if err != nil {
		return nil, err
	}
	return &read, nil
}
