package container

import (
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	whole "k8s.io/cri-api/pkg/apis/runtime/v1"

	v1 "faultd/api/cri/v1"
)

// TestSubset holds what faultd knows of the CRI against the whole of it.
func TestSubset(t *testing.T) {
	ours, theirs := v1.File_cri_v1_cri_proto, (&whole.ListContainersRequest{}).ProtoReflect().Descriptor().ParentFile()
	for i := range ours.Messages().Len() {
		message := ours.Messages().Get(i)
		same := theirs.Messages().ByName(message.Name())
		if same == nil {
			t.Errorf("the CRI has no message %s", message.Name())
			continue
		}
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			if there := same.Fields().ByNumber(field.Number()); there == nil || written(there) != written(field) {
				t.Errorf("%s: %s is not the CRI's", message.Name(), written(field))
			}
		}
	}
	for i := range ours.Enums().Len() {
		enum := ours.Enums().Get(i)
		for j := range enum.Values().Len() {
			value := enum.Values().Get(j)
			if there := theirs.Enums().ByName(enum.Name()).Values().ByName(value.Name()); there == nil || there.Number() != value.Number() {
				t.Errorf("%s is not the CRI's", value.FullName())
			}
		}
	}
}

// written is a field as it is on the wire, with the names of what it holds.
func written(f protoreflect.FieldDescriptor) string {
	text := f.Cardinality().String() + " " + f.Kind().String() + " " + string(f.Name())
	switch {
	case f.IsMap():
		return text + " of " + f.MapKey().Kind().String() + " and " + f.MapValue().Kind().String()
	case f.Message() != nil:
		return text + " of " + string(f.Message().Name())
	case f.Enum() != nil:
		return text + " of " + string(f.Enum().Name())
	}
	return text
}

// TestWithoutGRPC: the daemon speaks the CRI without gRPC's own client and the whole interface, which are for tests.
func TestWithoutGRPC(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command, to list what the program is made of")
	}
	out, err := exec.Command("go", "list", "-deps", "faultd/cmd/faultd").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "faultd/api/cri/v1\n") {
		t.Error("the program does not speak the CRI at all")
	}
	for line := range strings.Lines(string(out)) {
		if pkg := strings.TrimSpace(line); strings.HasPrefix(pkg, "google.golang.org/grpc") || strings.HasPrefix(pkg, "k8s.io/cri-api") {
			t.Errorf("the program links %s", pkg)
		}
	}
}
