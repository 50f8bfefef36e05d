package experiment

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	v1 "faultd/api/faultd/v1alpha1"
)

// grpcProbe asks a server for its health. Its connections are new, as those of httpProbe.
type grpcProbe struct {
	latency
	tlsOptions
	asked *v1.GrpcProbe
}

func (d *document) grpcProbe(field string, m *v1.GrpcProbe) check {
	return &grpcProbe{latency(d.duration(field+".latency", m.GetLatency(), leastDuration, 0)), d.tls(field+".tls", m.GetTls()), m}
}

// healthCheck is the call, and servingStatus what it may say, by number (grpc.health.v1).
const healthCheck = "/grpc.health.v1.Health/Check"

var servingStatus = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

func (p *grpcProbe) ask(ctx context.Context, _ Counters) (string, error) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	scheme := "http://"
	if p.asked.GetTls() == nil {
		transport.Protocols.SetUnencryptedHTTP2(true)
	} else {
		scheme = "https://"
		transport.Protocols.SetHTTP2(true)
		transport.TLSClientConfig = p.at(p.asked.GetAddress())
	}
	defer transport.CloseIdleConnections()
	// On the wire its messages, one string and one enumeration, are these.
	health := connect.NewClient[wrapperspb.StringValue, wrapperspb.Int32Value](&http.Client{Transport: transport}, scheme+p.asked.GetAddress()+healthCheck, connect.WithGRPC())
	response, err := health.CallUnary(ctx, connect.NewRequest(wrapperspb.String(p.asked.GetService())))
	if err != nil {
		return "", err
	}
	number := response.Msg.GetValue()
	status := fmt.Sprint(number)
	if number >= 0 && int(number) < len(servingStatus) {
		status = servingStatus[number]
	}
	if status != "SERVING" {
		return status, fmt.Errorf("the server says %s", status)
	}
	return status, nil
}
