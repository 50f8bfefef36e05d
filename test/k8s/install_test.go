package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	admissions "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

const deployDir = "../../deploy/kubernetes"

var (
	experiments   = schema.GroupVersionResource{Group: "faultd.io", Version: "v1alpha1", Resource: "experiments"}
	nodeRecords   = experiments.GroupVersion().WithResource("noderecords")
	schedules     = experiments.GroupVersion().WithResource("schedules")
	chaosPolicies = experiments.GroupVersion().WithResource("chaospolicies")
)

// cluster has what the server of custom resources has not, and admission policies ask for: namespaces, and the policies themselves.
var cluster = fake.NewClientset()

// definitions reads what make generate made.
func definitions() (all []*v1.CustomResourceDefinition, err error) {
	files, err := filepath.Glob(deployDir + "/crd/*s.yaml")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var crd v1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, &crd)
	}
	return all, nil
}

// install puts the definitions into the server and waits until it serves them.
func install() error {
	crds, err := definitions()
	if err != nil {
		return err
	}
	client, err := clientset.NewForConfig(server)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// Until the informers of policies have read them, the server refuses everything.
	api := client.ApiextensionsV1().CustomResourceDefinitions()
	for _, crd := range crds {
		err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			_, err := api.Create(ctx, crd, metav1.CreateOptions{})
			if apierrors.IsForbidden(err) || apierrors.IsServiceUnavailable(err) || utilnet.IsConnectionRefused(err) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			return fmt.Errorf("create %s: %w", crd.Name, err)
		}
	}
	for _, crd := range crds {
		var got *v1.CustomResourceDefinition
		err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (established bool, err error) {
			got, err = api.Get(ctx, crd.Name, metav1.GetOptions{})
			for _, condition := range got.Status.Conditions {
				if condition.Type == v1.NonStructuralSchema && condition.Status == v1.ConditionTrue {
					return false, errors.New(condition.Message)
				}
				established = established || condition.Type == v1.Established && condition.Status == v1.ConditionTrue
			}
			return established, err
		})
		if err != nil {
			return fmt.Errorf("establish %s: %w; %+v", crd.Name, err, got.Status.Conditions)
		}
	}
	return nil
}

// startPolicies reads the admission policies of the installation into the plugin that decides in a real API server.
func startPolicies(loopback *rest.Config, stopped <-chan struct{}) (admissions.Interface, error) {
	if err := readPolicies(); err != nil {
		return nil, err
	}
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	params, err := dynamic.NewForConfig(loopback)
	if err != nil {
		return nil, err
	}
	kinds := meta.NewDefaultRESTMapper([]schema.GroupVersion{chaosPolicies.GroupVersion()})
	kinds.AddSpecific(chaosPolicies.GroupVersion().WithKind("ChaosPolicy"), chaosPolicies, chaosPolicies.GroupVersion().WithResource("chaospolicy"), meta.RESTScopeRoot)
	factory := informers.NewSharedInformerFactory(cluster, 0)
	initializer.New(cluster, params, factory, authorizerfactory.NewAlwaysAllowAuthorizer(), nil, nil, stopped, kinds).Initialize(plugin)
	if err := plugin.ValidateInitialization(); err != nil {
		return nil, fmt.Errorf("start the admission policies: %w", err)
	}
	factory.Start(stopped)
	return plugin, nil
}

// readPolicies fills the cluster: with the policies, and with the namespaces of the tests.
func readPolicies() error {
	var objects []runtime.Object
	for _, namespace := range namespaces {
		objects = append(objects, namespace)
	}
	text, err := os.ReadFile(deployDir + "/experiments/admission.yaml")
	if err != nil {
		return err
	}
	for reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text))); ; {
		document := make([]byte, 1<<20)
		n, err := reader.Read(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document[:n], &kind); err != nil {
			return err
		}
		policy, binding := &admission.ValidatingAdmissionPolicy{}, &admission.ValidatingAdmissionPolicyBinding{}
		var object runtime.Object = policy
		if kind.Kind == "ValidatingAdmissionPolicyBinding" {
			object = binding
		}
		if err := yaml.UnmarshalStrict(document[:n], object); err != nil {
			return fmt.Errorf("read the admission policies: %w", err)
		}
		if match := policy.Spec.MatchConstraints; match != nil { // as the API server does
			match.NamespaceSelector, match.ObjectSelector, match.MatchPolicy = &metav1.LabelSelector{}, &metav1.LabelSelector{}, new(admission.Equivalent)
		}
		objects = append(objects, object)
	}
	cluster = fake.NewClientset(objects...)
	return nil
}

// namespaces are all that there are.
var namespaces = []*core.Namespace{
	{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"kubernetes.io/metadata.name": "shop", "faultd.io/chaos": "allowed"}}},
	{ObjectMeta: metav1.ObjectMeta{Name: "quiet", Labels: map[string]string{"kubernetes.io/metadata.name": "quiet"}}},
	{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: map[string]string{"kubernetes.io/metadata.name": "kube-system", "faultd.io/chaos": "allowed"}}},
}
