package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"

	"faultd/api"
	"faultd/bpf"
	"faultd/daemon"
)

// object is one of Kubernetes', whatever its kind.
type object = map[string]any

// TestDaemonSet: what the DaemonSet mounts is where the daemon looks, it starts on staging nodes alone, and has no more than it needs.
func TestDaemonSet(t *testing.T) {
	d := readDaemonSet(t)
	spec := d.Spec.Template.Spec
	if spec.NodeSelector["faultd.io/staging"] != "true" {
		t.Errorf("it starts on nodes with %v", spec.NodeSelector)
	}
	if !spec.HostPID || spec.AutomountServiceAccountToken || len(spec.Containers) != 1 {
		t.Errorf("%+v", spec)
	}
	if !maps.Equal(d.Spec.Selector.MatchLabels, d.Spec.Template.Metadata.Labels) {
		t.Errorf("it selects %v, its pods have %v", d.Spec.Selector.MatchLabels, d.Spec.Template.Metadata.Labels)
	}
	if u := d.Spec.UpdateStrategy; u.Type != "RollingUpdate" || u.RollingUpdate.MaxSurge != 0 {
		t.Errorf("two daemons would be on one node: %+v", u)
	}
	c := spec.Containers[0]
	if s := c.SecurityContext; s.Privileged || !s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%+v", s)
	}
	if probes := c.probes(); len(probes) != 2 {
		t.Errorf("probes of a port that is not there: %q", probes)
	}
	if c.Args[0] != "serve" || !slices.Contains(c.Args, fmt.Sprintf(":%d", c.Ports[0].ContainerPort)) {
		t.Errorf("the metrics are at port %d, the daemon is told %q", c.Ports[0].ContainerPort, c.Args)
	}

	mounts := make(map[string]bool) // whether they can be written to
	for _, m := range c.VolumeMounts {
		mounts[m.MountPath] = !m.ReadOnly
		i := slices.IndexFunc(spec.Volumes, func(v volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Errorf("there is no volume %q", m.Name)
		} else if host := spec.Volumes[i].HostPath.Path; host != "" && host != m.MountPath {
			t.Errorf("the host's %s is at %s", host, m.MountPath)
		}
	}
	want := map[string]bool{
		path.Dir(bpf.DefaultPinDir): true, daemon.DefaultStateDir: true, path.Dir(api.DefaultSocket): true,
		path.Dir(daemon.DefaultConfigFile): false, "/sys/fs/cgroup": true, "/dev/fuse": true, "/run": false,
	}
	if !maps.Equal(mounts, want) || len(spec.Volumes) != len(want) {
		t.Errorf("%d volumes, mounted (and writable): %v, want %v", len(spec.Volumes), mounts, want)
	}
}

// TestBase: the kustomization has every file beside it, and no object that gives rights to faultd's account.
func TestBase(t *testing.T) {
	var k struct {
		Resources          []string
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
	}
	text, err := os.ReadFile(filepath.Join(deployDir, "kustomization.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &k)
	}
	if err != nil {
		t.Fatal(err)
	}
	named := append(k.Resources, "kustomization.yaml", "monitoring", "crd", "experiments")
	for _, g := range k.ConfigMapGenerator {
		named = append(named, g.Files...)
	}
	var there []string
	entries, err := os.ReadDir(deployDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		there = append(there, entry.Name())
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("there are %q, it names %q", there, named)
	}
	for _, o := range readObjects(t, k.Resources...) {
		if kind := fmt.Sprint(o["kind"]); strings.Contains(kind, "Role") {
			t.Errorf("a %s, and faultd asks nothing of the API server", kind)
		}
	}
}

// TestKustomize lets kubectl build the base, and an overlay as a user writes it.
func TestKustomize(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("needs kubectl")
	}
	overlay := t.TempDir()
	base, err := filepath.Abs(deployDir)
	if err == nil {
		base, err = filepath.Rel(overlay, base)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("resources: [%s]\ncomponents: [%[1]s/monitoring, %[1]s/experiments]\nimages: [{name: faultd, newName: registry.example/faultd, newTag: v1}]\n", base)
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]struct {
		kinds string
		image string
	}{
		deployDir: {"ConfigMap DaemonSet Namespace NetworkPolicy PriorityClass ServiceAccount", "faultd"},
		overlay: {"ClusterRole ClusterRoleBinding ConfigMap CustomResourceDefinition CustomResourceDefinition CustomResourceDefinition CustomResourceDefinition DaemonSet Namespace NetworkPolicy PriorityClass Service ServiceAccount " +
			"ServiceMonitor ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding", "registry.example/faultd:v1"},
	} {
		out, err := exec.Command(kubectl, "kustomize", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var kinds []string
		for _, o := range decode(t, out) {
			kinds = append(kinds, fmt.Sprint(o["kind"]))
		}
		slices.Sort(kinds)
		if got := strings.Join(kinds, " "); got != want.kinds || !strings.Contains(string(out), "image: "+want.image+"\n") {
			t.Errorf("%s: it has %s, and not the image %s:\n%s", dir, got, want.image, out)
		}
	}
}

// TestChart renders the chart, which uses few of Helm's functions, and compares it with the base.
func TestChart(t *testing.T) {
	got := renderChart(t, func(values object) { values["monitoring"] = true })
	want := readObjects(t, "daemonset.yaml", "networkpolicy.yaml", "priorityclass.yaml", "serviceaccount.yaml", "monitoring/service.yaml", "monitoring/servicemonitor.yaml")
	// The namespace is the user's, and the configuration is the defaults.
	want["ConfigMap"] = object{
		"apiVersion": "v1", "kind": "ConfigMap", "data": object{"faultd.yaml": "{}\n"},
		"metadata": object{"name": "faultd", "namespace": "faultd", "labels": object{"app.kubernetes.io/name": "faultd"}},
	}
	meta := got["DaemonSet"]["spec"].(object)["template"].(object)["metadata"].(object)
	if a, ok := meta["annotations"].(object); !ok || len(a) != 1 {
		t.Errorf("the pods have the annotations %v", meta["annotations"])
	}
	delete(meta, "annotations") // a hash of the configuration, as kustomize has one in the ConfigMap's name
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("the chart has %q, the base %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for kind := range want {
		if !reflect.DeepEqual(got[kind], want[kind]) {
			t.Errorf("%s of the chart:\n%v\nof the base:\n%v", kind, got[kind], want[kind])
		}
	}
}

// TestExperimentsInBoth: what the chart adds for experiments is what the component of the base does.
func TestExperimentsInBoth(t *testing.T) {
	bare := renderChart(t, func(object) {})
	chart := renderChart(t, func(values object) { values["experiments"] = true })
	for kind, want := range readObjects(t, "experiments/rbac.yaml", "experiments/admission.yaml") {
		if !reflect.DeepEqual(chart[kind], want) {
			t.Errorf("%s of the chart:\n%v\nof the base:\n%v", kind, chart[kind], want)
		}
		if bare[kind] != nil {
			t.Errorf("a %s is there unasked", kind)
		}
	}
	patches := readObjects(t, "experiments/daemonset.yaml", "experiments/networkpolicy.yaml")
	const first = "default-container:faultd"
	if !strings.Contains(fmt.Sprint(chart["DaemonSet"]), first) || !strings.Contains(fmt.Sprint(patches["DaemonSet"]), first) {
		t.Error("kubectl exec would go to whichever container comes first")
	}
	podOf := func(o object) object { return o["spec"].(object)["template"].(object)["spec"].(object) }
	for _, list := range []string{"containers", "volumes"} {
		before := podOf(bare["DaemonSet"])[list].([]any)
		want := slices.Concat(before, podOf(patches["DaemonSet"])[list].([]any))
		if got := podOf(chart["DaemonSet"])[list]; !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s of the chart:\n%v\nof the base:\n%v", list, got, want)
		}
	}
	if got, want := chart["NetworkPolicy"]["spec"].(object)["egress"], patches["NetworkPolicy"]["spec"].(object)["egress"]; !reflect.DeepEqual(got, want) {
		t.Errorf("the chart lets out %v, the base %v", got, want)
	}
}

// TestAgent: faultd-kube has a token and the socket, and no rights on the node; the daemon has no token.
func TestAgent(t *testing.T) {
	patch := fmt.Sprint(readObjects(t, "experiments/daemonset.yaml")["DaemonSet"]["spec"].(object)["template"].(object)["spec"].(object)["containers"])
	for _, want := range []string{"drop:[ALL]", "allowPrivilegeEscalation:false", "readOnlyRootFilesystem:true", "mountPath:" + path.Dir(api.DefaultSocket), "mountPath:/var/run/secrets/kubernetes.io/serviceaccount"} {
		if !strings.Contains(patch, want) {
			t.Errorf("there is no %q in %s", want, patch)
		}
	}
	if strings.Contains(patch, "add:") {
		t.Errorf("capabilities are added: %s", patch)
	}
	for _, m := range readDaemonSet(t).Spec.Template.Spec.Containers[0].VolumeMounts {
		if m.Name == "token" {
			t.Error("the daemon has a token")
		}
	}
}

// TestRole: the account may write nothing but how experiments and schedules stand, the experiments of schedules, records, and events.
func TestRole(t *testing.T) {
	writes := map[string]string{}
	for _, one := range readObjects(t, "experiments/rbac.yaml")["ClusterRole"]["rules"].([]any) {
		rule := one.(object)
		for _, verb := range rule["verbs"].([]any) {
			if !slices.Contains([]any{"get", "list", "watch"}, verb) {
				writes[fmt.Sprint(rule["resources"])] += fmt.Sprint(verb)
			}
		}
	}
	if want := map[string]string{"[experiments/status schedules/status]": "patch", "[experiments]": "createdelete", "[noderecords]": "createpatchdelete", "[events]": "create"}; !maps.Equal(writes, want) {
		t.Errorf("it may do %v, want %v", writes, want)
	}
}

// TestChartValues: what a user sets is in what comes out.
func TestChartValues(t *testing.T) {
	render := func(config object) map[string]object {
		return renderChart(t, func(values object) {
			values["image"] = object{"repository": "registry.example/faultd", "tag": "v1", "pullSecrets": []any{object{"name": "registry"}}}
			values["nodeSelector"] = object{"pool": "chaos"}
			values["config"] = config
		})
	}
	one, other := render(object{"environment": "staging"}), render(object{"environment": "test"})
	text := fmt.Sprint(one)
	for _, want := range []string{"image:registry.example/faultd:v1", "imagePullSecrets:[map[name:registry]]", "nodeSelector:map[pool:chaos]", "environment: staging"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
	if reflect.DeepEqual(one["DaemonSet"], other["DaemonSet"]) {
		t.Error("another configuration is not rolled out")
	}
	if _, ok := one["ServiceMonitor"]; ok {
		t.Error("a ServiceMonitor is there unasked")
	}
	if _, ok := one["ValidatingAdmissionPolicy"]; ok {
		t.Error("an admission policy is there unasked")
	}
}

// readObjects reads files of the base, by kind.
func readObjects(t *testing.T, names ...string) map[string]object {
	t.Helper()
	objects := make(map[string]object)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(deployDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range decode(t, text) {
			objects[fmt.Sprint(o["kind"])] = o
		}
	}
	return objects
}

func decode(t *testing.T, text []byte) (objects []object) {
	t.Helper()
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
}

const chartDir = "../../deploy/helm"

// renderChart does what `helm template` does, by kind, with the functions that the chart uses.
func renderChart(t *testing.T, set func(values object)) map[string]object {
	t.Helper()
	values := make(object)
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &values)
	}
	if err != nil {
		t.Fatal(err)
	}
	set(values)
	functions := template.FuncMap{
		"toYaml": func(v any) (string, error) {
			text, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(text), "\n"), err
		},
		"nindent": func(n int, text string) string {
			indent := "\n" + strings.Repeat(" ", n)
			return indent + strings.ReplaceAll(text, "\n", indent)
		},
		"sha256sum": func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) },
		"quote":     func(text string) string { return fmt.Sprintf("%q", text) },
	}
	chart, err := template.New("chart").Funcs(functions).Option("missingkey=error").ParseGlob(filepath.Join(chartDir, "templates", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := make(map[string]object)
	for _, part := range chart.Templates() {
		var b bytes.Buffer
		if err := part.Execute(&b, object{"Values": values, "Release": object{"Namespace": "faultd"}}); err != nil {
			t.Fatal(err)
		}
		for _, o := range decode(t, b.Bytes()) {
			objects[fmt.Sprint(o["kind"])] = o
		}
	}
	return objects
}
