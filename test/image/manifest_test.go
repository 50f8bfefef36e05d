package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const deployDir = "../../deploy/kubernetes"

// daemonSet is what the manifest says. It is read strictly: a field that nobody here looks at is an error, so that what is run in the
// tests is what the manifest says, and not less.
type daemonSet struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		UpdateStrategy struct {
			Type          string
			RollingUpdate struct {
				MaxSurge       int    `yaml:"maxSurge"`
				MaxUnavailable string `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		} `yaml:"updateStrategy"`
		Template struct {
			Metadata metadata
			Spec     podSpec
		}
	}
}

type metadata struct {
	Name, Namespace string
	Labels          map[string]string
	Annotations     map[string]string
}

type podSpec struct {
	NodeSelector                  map[string]string   `yaml:"nodeSelector"`
	Tolerations                   []map[string]string `yaml:"tolerations"`
	PriorityClassName             string              `yaml:"priorityClassName"`
	ServiceAccountName            string              `yaml:"serviceAccountName"`
	AutomountServiceAccountToken  bool                `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            bool                `yaml:"enableServiceLinks"`
	HostPID                       bool                `yaml:"hostPID"`
	TerminationGracePeriodSeconds int64               `yaml:"terminationGracePeriodSeconds"`
	Containers                    []container
	Volumes                       []volume
}

type container struct {
	Name, Image string
	Args        []string
	Ports       []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	SecurityContext struct {
		Privileged             bool
		RunAsUser              int64                 `yaml:"runAsUser"`
		RunAsGroup             int64                 `yaml:"runAsGroup"`
		ReadOnlyRootFilesystem bool                  `yaml:"readOnlyRootFilesystem"`
		SeccompProfile         struct{ Type string } `yaml:"seccompProfile"`
		AppArmorProfile        struct{ Type string } `yaml:"appArmorProfile"`
		Capabilities           struct{ Drop, Add []string }
	} `yaml:"securityContext"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
	Resources      struct{ Requests, Limits map[string]string }
	VolumeMounts   []struct {
		Name        string
		MountPath   string `yaml:"mountPath"`
		ReadOnly    bool   `yaml:"readOnly"`
		Propagation string `yaml:"mountPropagation"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet        struct{ Path, Port string } `yaml:"httpGet"`
	PeriodSeconds  int                         `yaml:"periodSeconds"`
	TimeoutSeconds int                         `yaml:"timeoutSeconds"`
}

type volume struct {
	Name      string
	HostPath  struct{ Path, Type string } `yaml:"hostPath"`
	ConfigMap struct{ Name string }       `yaml:"configMap"`
}

func readDaemonSet(t *testing.T) daemonSet {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "daemonset.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d daemonSet
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// pod and container are what a kubelet makes of them for CRI. Directories of the host that belong to faultd alone are the test's own.
func (p podSpec) sandbox(config *cri.PodSandboxConfig) {
	pid := cri.NamespaceMode_CONTAINER
	if p.HostPID {
		pid = cri.NamespaceMode_NODE
	}
	config.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: pid}
}

func (p podSpec) container(t *testing.T, c container, host map[string]string) func(*cri.ContainerConfig) {
	t.Helper()
	return func(config *cri.ContainerConfig) {
		s := c.SecurityContext
		config.Args = c.Args
		config.Linux.SecurityContext.Privileged = s.Privileged
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: s.RunAsUser}
		config.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: s.RunAsGroup}
		config.Linux.SecurityContext.ReadonlyRootfs = s.ReadOnlyRootFilesystem
		config.Linux.SecurityContext.Capabilities = &cri.Capability{DropCapabilities: s.Capabilities.Drop, AddCapabilities: s.Capabilities.Add}
		config.Linux.SecurityContext.Seccomp = profile(t, s.SeccompProfile.Type)
		config.Linux.SecurityContext.Apparmor = profile(t, s.AppArmorProfile.Type)
		for _, m := range c.VolumeMounts {
			config.Mounts = append(config.Mounts, &cri.Mount{ContainerPath: m.MountPath, HostPath: p.source(t, m.Name, host), Readonly: m.ReadOnly, Propagation: propagation(t, m.Propagation)})
		}
	}
}

// source is what a volume is on the host.
func (p podSpec) source(t *testing.T, name string, host map[string]string) string {
	t.Helper()
	i := slices.IndexFunc(p.Volumes, func(v volume) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("there is no volume %q", name)
	}
	if own, ok := host[name]; ok {
		return own
	}
	return p.Volumes[i].HostPath.Path
}

func propagation(t *testing.T, mode string) cri.MountPropagation {
	t.Helper()
	switch mode {
	case "":
		return cri.MountPropagation_PROPAGATION_PRIVATE
	case "HostToContainer":
		return cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	}
	t.Fatalf("no mount propagation of ours is called %q", mode)
	return 0
}

func profile(t *testing.T, kind string) *cri.SecurityProfile {
	t.Helper()
	switch kind {
	case "RuntimeDefault":
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	case "Unconfined":
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	}
	t.Fatalf("no profile is called %q", kind)
	return nil
}

// probes are the URLs of a container's probes, without its address.
func (c container) probes() (urls []string) {
	for _, p := range []probe{c.LivenessProbe, c.ReadinessProbe} {
		for _, port := range c.Ports {
			if port.Name == p.HTTPGet.Port {
				urls = append(urls, fmt.Sprintf(":%d%s", port.ContainerPort, p.HTTPGet.Path))
			}
		}
	}
	return urls
}
