// Package k8s tries faultd's definitions, policies and roles on the parts of Kubernetes that decide about them, in this process: the API
// server of custom resources, with an etcd beside it, and the plugin of admission policies. It is a module of its own, so that their versions
// do not become faultd's.
package k8s

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generated "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	namer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// server is what all tests use; each in namespaces of its own. agents are the rights of faultd-kube there.
var (
	server *rest.Config
	agents *role
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	klog.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "faultd-k8s")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := startEtcd(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	stop, err := startServer(dir, store.Clients[0].Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	if err := install(); err != nil {
		log.Fatal(err)
	}
	return m.Run()
}

// startEtcd starts one on addresses of its own.
func startEtcd(dir string) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = dir + "/etcd"
	config.LogLevel = "fatal"
	config.UnsafeNoFsync = true
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{any}, []url.URL{any}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-time.After(time.Minute):
		return nil, fmt.Errorf("start etcd: it is not ready after a minute")
	}
}

// startServer starts the API server of custom resources, where everybody is who he says, and may do everything but the agents' account, which
// may do what its role says; admission policies decide for real.
func startServer(dir, etcd string) (stop func(), err error) {
	o := options.NewCustomResourceDefinitionsServerOptions(io.Discard, io.Discard)
	r := o.RecommendedOptions
	r.Etcd.StorageConfig.Transport.ServerList = []string{"http://" + etcd}
	r.Authentication, r.Authorization, r.CoreAPI, r.Admission = nil, nil, nil, nil
	r.Features.EnablePriorityAndFairness = false
	r.SecureServing.ServerCert.CertDirectory = dir
	if r.SecureServing.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	if err := r.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, err
	}
	generic := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	if err := o.ServerRunOptions.ApplyTo(&generic.Config); err != nil {
		return nil, err
	}
	if err := r.ApplyTo(generic); err != nil {
		return nil, err
	}
	if err := o.APIEnablement.ApplyTo(&generic.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme); err != nil {
		return nil, err
	}
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generated.GetOpenAPIDefinitions)
	generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer.NewDefinitionNamer(apiserver.Scheme))
	generic.Authentication.Authenticator = authenticator.RequestFunc(whoSays)
	if agents, err = readRole(); err != nil {
		return nil, err
	}
	generic.Authorization.Authorizer = agents
	ctx, cancel := context.WithCancel(context.Background())
	policies, err := startPolicies(generic.LoopbackClientConfig, ctx.Done())
	if err != nil {
		cancel()
		return nil, err
	}
	generic.AdmissionControl = policies

	config := apiserver.Config{GenericConfig: generic, ExtraConfig: apiserver.ExtraConfig{
		CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*r.Etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
	}}
	crds, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		cancel()
		return nil, fmt.Errorf("make the API server: %w", err)
	}
	ended := make(chan error, 1)
	prepared := crds.GenericAPIServer.PrepareRun()
	go func() { ended <- prepared.RunWithContext(ctx) }()
	server = rest.CopyConfig(crds.GenericAPIServer.LoopbackClientConfig)
	server.QPS, server.Burst = -1, 0
	return func() { cancel(); <-ended }, nil
}

// whoSays believes a header.
func whoSays(request *http.Request) (*authenticator.Response, bool, error) {
	name := request.Header.Get("X-Test-User")
	if name == "" {
		name = "somebody"
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: request.Header.Values("X-Test-Group")}}, true, nil
}

// client is one of the server's, of somebody without a name.
func client(t *testing.T) *dynamic.DynamicClient {
	t.Helper()
	c, err := dynamic.NewForConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
